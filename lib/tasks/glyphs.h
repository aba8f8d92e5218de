/* glyphs.h - a small font for what is written into pictures. SPDX-License-Identifier: Apache-2.0 */
#ifndef RZ_GLYPHS_H
#define RZ_GLYPHS_H

#include <stdint.h>

enum { RZ_GLYPH_W = 5, RZ_GLYPH_H = 7 };

/* RZ_GLYPH_H rows of RZ_GLYPH_W pixels, the left one in bit 4. What is not printable ASCII looks like '?'. */
const uint8_t *rz_glyph(char c);

#endif
