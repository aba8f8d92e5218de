/* PNG and JPEG, and what the tower would see of them. SPDX-License-Identifier: Apache-2.0 */
#include "fuzz.h"
#include "preprocess.h"

static void preprocess(const rz_pixels *film, size_t seed)
{
    static float out[3 * 24 * 24];
    const size_t size = 8 + seed % 17;
    rz_preprocess_config c = {.pad_to_square = seed & 1, .resize = true, .crop = true, .rescale = 1 / 255.0f};
    c.shortest_edge = c.crop_width = c.crop_height = size;
    for (int i = 0; i < 3; i++) c.mean[i] = 0.5f, c.std[i] = 0.25f;
    radz_error err;
    radz_status status = rz_preprocess(NULL, &c, size, film, out, &err);
    fuzz_check(status, &err);
    for (size_t i = 0; !status && i < 3 * size * size; i++)
        fuzz_require(out[i] >= -2 && out[i] <= 2, "range of a pixel");
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    rz_pixels film;
    radz_error err;
    radz_status status = rz_pixels_decode(NULL, data, size, "film", &film, &err);
    fuzz_check(status, &err);
    if (status) {
        fuzz_require(!film.data, "no pixels after a failure");
        return 0;
    }
    if (film.width_px * film.height_px <= 100000) preprocess(&film, size);
    rz_pixels_free(NULL, &film);
    return 0;
}
