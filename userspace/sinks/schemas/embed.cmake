# Run by `cmake -P`: writes OUTPUT, a .cpp with every schema in DIRECTORY as a string.
file(GLOB schemas ${DIRECTORY}/*.json)
list(SORT schemas)
set(entries "")
foreach(schema IN LISTS schemas)
  get_filename_component(record ${schema} NAME_WE)
  file(READ ${schema} text)
  string(APPEND entries "    {\"${record}\", R\"json(${text})json\"},\n")
endforeach()
file(WRITE ${OUTPUT} "#include \"sinks/schemas/embedded.h\"

namespace looptrace {

std::span<const EmbeddedSchema> embedded_schemas() {
  static constexpr EmbeddedSchema kSchemas[] = {
${entries}  };
  return kSchemas;
}

}  // namespace looptrace
")
