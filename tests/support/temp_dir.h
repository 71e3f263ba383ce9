/* SPDX-License-Identifier: Apache-2.0 */
/* Directories that a test makes for itself, under $TMPDIR or /tmp. */
#ifndef TESTS_SUPPORT_TEMP_DIR_H
#define TESTS_SUPPORT_TEMP_DIR_H

#define TEMP_PATH_MAX 256

/* Makes an empty directory of mode 0700; the path is the caller's to give to temp_dir_remove(). Aborts if it cannot. */
char *temp_dir_make(void);
/* Removes it with all that is in it (links are not followed), and frees the path. NULL is fine. */
void temp_dir_remove(char *path);
/* path/name in `to`, which is also returned. Aborts if it does not fit. */
char *temp_dir_file(char to[TEMP_PATH_MAX], const char *path, const char *name);

#endif
