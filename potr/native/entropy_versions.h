// SPDX-License-Identifier: Apache-2.0
// What differs between the format versions whose sections share code.
#pragma once

#include "entropy_mixer.h"
#include "entropy_mixer_2.h"
#include "entropy_streams.h"

namespace potr::entropy {

struct Version2 {
    template <int Inputs>
    using Mixer = version2::Mixer<Inputs>;
};

struct Version3 {
    template <int>
    using Mixer = entropy::Mixer;
};

}  // namespace potr::entropy
