# SPDX-License-Identifier: Apache-2.0
"""The constants of 3DGS image formation (Kerbl et al. 2023); potr/native/splat_math.h has the same for the kernels."""

NEAR = 0.2  # world units along the viewing direction: nothing nearer is drawn
MARGIN = 0.15  # of the image's side, by which a mean may lie outside and its splat still reach in
DILATION = 0.3  # px^2 that the projection adds to the diagonal of a splat's 2D covariance
ALPHA_MAX = 0.99
ALPHA_MIN = 1 / 255  # a pixel's alpha below which a splat leaves it untouched
TRANSMITTANCE_MIN = 1e-4  # where a rendered pixel is blended no further
