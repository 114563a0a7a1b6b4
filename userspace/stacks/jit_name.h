// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string_view>

#include "record/frame.h"

namespace looptrace {

/// Takes a perf map's name apart: V8's "JS:*hashAll /srv/app.js:13:17" and CPython's
/// "py::handler:/srv/app.py" give function, file and line; any other text is the function's name. Fills
/// `function`, `file`, `line` and `origin`.
void parse_jit_name(std::string_view name, Frame& frame);

}  // namespace looptrace
