/* SPDX-License-Identifier: Apache-2.0 */
/* Directories for tests: see temp_dir.h. */
#include "tests/support/temp_dir.h"

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

char *temp_dir_make(void)
{
    const char *parent = getenv("TMPDIR");
    char *path = malloc(TEMP_PATH_MAX);

    if (path == NULL)
        abort();
    temp_dir_file(path, parent != NULL && *parent != '\0' ? parent : "/tmp", "millrace-test-XXXXXX");
    if (mkdtemp(path) == NULL) {
        perror(path);
        abort();
    }
    return path;
}

static int remove_one(const char *path, const struct stat *status, int kind, struct FTW *where)
{
    (void)status;
    (void)kind;
    (void)where;
    if (remove(path) != 0)
        perror(path);
    return 0;
}

void temp_dir_remove(char *path)
{
    if (path == NULL)
        return;
    if (nftw(path, remove_one, 16, FTW_DEPTH | FTW_PHYS) != 0)
        perror(path);
    free(path);
}

char *temp_dir_file(char to[TEMP_PATH_MAX], const char *path, const char *name)
{
    int length = snprintf(to, TEMP_PATH_MAX, "%s/%s", path, name);

    if (length < 0 || length >= TEMP_PATH_MAX) {
        fprintf(stderr, "%s/%s: too long for a test's path\n", path, name);
        abort();
    }
    return to;
}
