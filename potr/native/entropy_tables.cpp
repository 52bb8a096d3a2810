// SPDX-License-Identifier: Apache-2.0
#include "entropy_coder.h"

namespace potr::entropy {
namespace {

// 65536 / (1 + e^-(i / 2 - 8)), rounded.
constexpr int kLogistic[33] = {22,    36,    60,    98,    162,   267,   439,   720,   1179,  1921,  3108,
                               4971,  7812,  11955, 17625, 24743, 32768, 40793, 47911, 53581, 57724, 60565,
                               62428, 63615, 64357, 64816, 65097, 65269, 65374, 65438, 65476, 65500, 65514};

}  // namespace

Tables::Tables() {
    for (int i = 0; i < 4096; ++i) {
        const int knot = i >> 7, part = i & 127;
        squash[i] = static_cast<uint16_t>((kLogistic[knot] * (128 - part) + kLogistic[knot + 1] * part + 64) >> 7);
    }
    int p = 0;
    for (int x = -2047; x <= 2047; ++x)
        for (; p <= squash[x + 2048] >> 4; ++p) stretch[p] = static_cast<int16_t>(x);
    for (; p < 4096; ++p) stretch[p] = 2047;
    for (int n = 0; n < 32; ++n) rate[n] = 2 * (5120 / (10 * n + 16));
}

const Tables kTables;

}  // namespace potr::entropy
