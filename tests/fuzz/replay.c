/* SPDX-License-Identifier: Apache-2.0 */
/* Runs a fuzz target, without libFuzzer, on inputs that were found before: `replay_<target> FILE...`. Prints how many
 * it ran. An input that fails ends the program, its name being the last one on standard error. */
#include "tests/fuzz/fuzz.h"

#include <stdio.h>
#include <stdlib.h>

/* Of its own, and just as large, so that a sanitizer sees a step past the end. False: it cannot be read. */
static bool run(const char *path)
{
    FILE *file = fopen(path, "rb");
    if (file == NULL)
        return false;
    uint8_t *data = NULL;
    size_t size = 0;
    int c;
    while ((c = getc(file)) != EOF) {
        uint8_t *longer = realloc(data, size + 1);
        if (longer == NULL)
            abort();
        data = longer;
        data[size++] = (uint8_t)c;
    }
    bool read = !ferror(file);
    if (fclose(file) == 0 && read) {
        fprintf(stderr, "%s\n", path);
        LLVMFuzzerTestOneInput(data, size);
    }
    free(data);
    return read;
}

int main(int argc, char **argv)
{
    for (int i = 1; i < argc; i++) {
        if (!run(argv[i])) {
            fprintf(stderr, "%s: cannot be read\n", argv[i]);
            return 1;
        }
    }
    printf("%d inputs\n", argc - 1);
    return 0;
}
