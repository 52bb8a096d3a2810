// SPDX-License-Identifier: Apache-2.0
#include "entropy_mixer.h"

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
}

CounterTables::CounterTables() {
    std::array<int32_t, 512> levels;  // their probabilities
    for (int level = 0; level < 512; ++level) levels[level] = kTables.squash[8 * level + 4];
    const auto nearest = [&](int32_t one) {
        const int above = static_cast<int>(std::lower_bound(levels.begin(), levels.end() - 1, one) - levels.begin());
        const int below = std::max(above - 1, 0), best = levels[above] - one < one - levels[below] ? above : below;
        return static_cast<int>(std::lower_bound(levels.begin(), levels.end(), levels[best]) - levels.begin());
    };
    for (int seen = 0; seen < 16; ++seen)
        for (int level = 0; level < 512; ++level) {
            const int counter = 512 * seen + level, one = seen ? levels[level] : 1 << 15;
            input[counter] = static_cast<int16_t>((32 * level - 8176) * seen / (seen + 1));
            for (int slow = 0; slow < 2; ++slow)
                for (int bit = 0; bit < 2; ++bit) {
                    const int limit = slow ? 15 : 8, age = std::min(seen, limit);
                    int to = nearest(one + ((bit ? 65535 : 0) - one) * 10 / (age == 15 ? 250 : 10 * age + 16));
                    if (to == level && seen) to = std::clamp(level + (bit ? 1 : -1), 0, 511);
                    next[slow][counter][bit] = static_cast<Counter>(512 * std::min(seen + 1, limit) + to);
                }
        }
}

const Tables kTables;
const CounterTables kCounterTables;  // made after the tables it is made of

}  // namespace potr::entropy
