# LOOPTRACE_STATIC_LIBBPF: the archives of libbpf, elfutils and the compressors instead of their shared libraries, and
# the C++ runtime too. Only the C library stays dynamic: the binary then runs wherever that is as new as the build's.
function(looptrace_link_archives target)
  set(archives)
  foreach(name ${ARGN})
    find_library(archive_${name} NAMES lib${name}.a REQUIRED)
    list(APPEND archives ${archive_${name}})
  endforeach()
  set_target_properties(PkgConfig::${target} PROPERTIES INTERFACE_LINK_LIBRARIES "${archives}")
endfunction()

looptrace_link_archives(BPF bpf elf z)
looptrace_link_archives(ELF elf z)
looptrace_link_archives(DW dw elf bz2 lzma z)
looptrace_link_archives(LZMA lzma)
looptrace_link_archives(ZLIB z)
add_link_options(-static-libgcc -static-libstdc++)
