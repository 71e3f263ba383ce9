/* SPDX-License-Identifier: Apache-2.0 */
/* Leaving root: see privileges.h. Knows nothing of what the node does afterwards. */
#include "engine/node/privileges.h"

#include "engine/node/values.h"
#include "ipc/sys.h"

#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <stdint.h>
#include <sys/stat.h>
#include <unistd.h>

static const struct passwd *find(const char *user)
{
    const struct passwd *found = getpwnam(user);
    uint64_t number;

    return found == NULL && value_number(user, &number) && number < UINT32_MAX ? getpwuid((uid_t)number) : found;
}

/* One that is there is left as it is: whose it is decides who may use it. */
static int make_directory(const char *dir, const struct passwd *user, struct mr_error *error)
{
    if (sys_mkdir(dir, 0700) != 0)
        return errno == EEXIST ? 0 : error_system(error, errno, "--dir %s: cannot make the data directory", dir);
    if (sys_fchownat(AT_FDCWD, dir, user->pw_uid, user->pw_gid, AT_SYMLINK_NOFOLLOW) == 0)
        return 0;
    error_system(error, errno, "--dir %s: cannot give the data directory to %s", dir, user->pw_name);
    /* Else the next start would take it for one to be left as it is. If it stays, that start says whose it is. */
    (void)sys_unlinkat(AT_FDCWD, dir, AT_REMOVEDIR);
    return -1;
}

int privileges_drop(const char *user, const char *dir, struct mr_error *error)
{
    const struct rlimit unlimited = {.rlim_cur = RLIM_INFINITY, .rlim_max = RLIM_INFINITY};

    if (user == NULL)
        return 0;
    const struct passwd *found = find(user);
    if (found == NULL)
        return error_set(error, "--user %.100s: there is no such user on this machine", user);
    if (found->pw_uid == geteuid())
        return 0;
    if (geteuid() != 0)
        return error_set(error, "--user %.100s: only root can become another user", user);
    if (make_directory(dir, found, error) != 0)
        return -1;
    (void)sys_setrlimit(RLIMIT_MEMLOCK, &unlimited); /* refused to a lesser root: whether it matters, the ring says */
    /* Groups first: afterwards it takes a right that is gone. */
    if (sys_initgroups(found->pw_name, found->pw_gid) != 0 || sys_setgid(found->pw_gid) != 0 ||
        sys_setuid(found->pw_uid) != 0)
        return error_system(error, errno, "--user %.100s: cannot become that user", user);
    mr_assert(found->pw_uid == 0 || setuid(0) != 0); /* no way back */
    return 0;
}
