// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <vector>

#include "base/result.h"
#include "record/other_records.h"

namespace looptrace {

/// What this kernel and these privileges allow, found by trying: each check is independent and leaves nothing
/// behind. Required ones first.
std::vector<Capability> probe_features();

/// The first required feature that is missing, as the error of exit code 4.
Result<void> require_features(const std::vector<Capability>& features);

}  // namespace looptrace
