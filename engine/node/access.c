/* SPDX-License-Identifier: Apache-2.0 */
/* Who may use the node: see access.h. Knows the socket's path and peers, nothing of what is said there. */
#include "engine/node/access.h"

#include "engine/node/values.h"
#include "ipc/sys.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define NAME_SIZE 64
#define GROUPS_EXPECTED 64
/* (id_t)-1 means "no change" to the kernel, and is nobody's. */
#define ID_MOST UINT64_C(0xfffffffe)

/* ---- lists ---- */

static bool find_user(const char *name, id_t *id)
{
    const struct passwd *user = getpwnam(name);

    if (user != NULL)
        *id = user->pw_uid;
    return user != NULL;
}

static bool find_group(const char *name, id_t *id)
{
    const struct group *group = getgrnam(name);

    if (group != NULL)
        *id = group->gr_gid;
    return group != NULL;
}

static int read_list(const char *option, const char *text, const char *what, bool (*find)(const char *name, id_t *id),
                     struct access_list *list, struct mr_error *error)
{
    char name[NAME_SIZE];
    uint64_t number;

    *list = (struct access_list){.given = true};
    for (const char *from = text, *end; from != NULL; from = *end == ',' ? end + 1 : NULL) {
        end = from + strcspn(from, ",");
        size_t size = (size_t)(end - from);
        if (list->count == MR_ALLOWED_MAX)
            return error_set(error, "--%s %.100s: at most %d can be named", option, text, MR_ALLOWED_MAX);
        bool known = size > 0 && size < sizeof(name);
        if (known) {
            memcpy(name, from, size);
            name[size] = '\0';
            if (value_number(name, &number) && number <= ID_MOST)
                list->ids[list->count] = (id_t)number;
            else
                known = find(name, &list->ids[list->count]);
        }
        if (!known)
            return error_set(error,
                             "--%s %.100s: allowed are numbers and names of %s with commas between; "
                             "%.*s is none here",
                             option, text, what, (int)size, from);
        list->count++;
    }
    return 0;
}

int access_read_users(const char *option, const char *text, struct access_list *list, struct mr_error *error)
{
    return read_list(option, text, "users", find_user, list, error);
}

int access_read_groups(const char *option, const char *text, struct access_list *list, struct mr_error *error)
{
    return read_list(option, text, "groups", find_group, list, error);
}

static bool is_in(const struct access_list *list, id_t id)
{
    for (unsigned i = 0; i < list->count; i++)
        if (list->ids[i] == id)
            return true;
    return false;
}

/* ---- the socket ---- */

/* Through the descriptor, whatever becomes of the path. */
static int dress(const struct access *access, int socket, const char *path, struct stat *status, struct mr_error *error)
{
    if (sys_fstat(socket, status) != 0)
        return error_system(error, errno, "--socket %s: cannot look at the socket just made", path);
    if (!S_ISSOCK(status->st_mode) || status->st_uid != geteuid()) {
        *status = (struct stat){.st_ino = 0};
        return error_set(error, "--socket %s: somebody has put something else in the place of the socket just made",
                         path);
    }
    if ((status->st_mode & 07777) != access->socket_mode)
        return error_set(error,
                         "--socket-mode: the socket %s has got mode %04o instead of %04o; the default access list of "
                         "its directory may be why (`getfacl`)",
                         path, (unsigned)(status->st_mode & 07777), (unsigned)access->socket_mode);
    if (access->socket_group_given && sys_fchownat(socket, "", (uid_t)-1, access->socket_group, AT_EMPTY_PATH) != 0)
        return error_system(error, errno,
                            "--socket-group: cannot give the socket %s to group %u; the node's user must belong to it",
                            path, (unsigned)access->socket_group);
    return 0;
}

int access_bind(const struct access *access, int listener, const struct sockaddr_un *address, struct mr_error *error)
{
    mode_t former = umask(0777 & ~access->socket_mode);
    int result = sys_bind(listener, (const struct sockaddr *)address, sizeof(*address));
    int code = errno;

    (void)umask(former); /* cannot fail */
    return result == 0 ? 0 : error_system(error, code, "--socket %s: cannot bind", address->sun_path);
}

int access_dress_socket(const struct access *access, const char *path, struct stat *status, struct mr_error *error)
{
    int socket = sys_open(path, O_PATH | O_NOFOLLOW | O_CLOEXEC, 0);

    if (socket < 0)
        return error_system(error, errno, "--socket %s: cannot look at the socket just made", path);
    int result = dress(access, socket, path, status, error);
    (void)sys_close(socket); /* was only named */
    return result;
}

/* Is one of the groups that the peer had as it connected let in, beside its first? */
static bool by_other_group(const struct access *access, int socket)
{
    gid_t few[GROUPS_EXPECTED], *groups = few;
    socklen_t size = sizeof(few);
    bool allowed = false;

    int result = sys_getsockopt(socket, SOL_SOCKET, SO_PEERGROUPS, groups, &size);
    if (result != 0 && errno == ERANGE) { /* `size` says what they take */
        groups = malloc(size);
        result = groups != NULL ? sys_getsockopt(socket, SOL_SOCKET, SO_PEERGROUPS, groups, &size) : -1;
    }
    for (socklen_t i = 0; result == 0 && i < size / sizeof(*groups); i++)
        allowed |= is_in(&access->gids, groups[i]);
    if (groups != few)
        free(groups);
    return allowed;
}

bool access_allows(const struct access *access, int socket, const struct ucred *peer, struct mr_error *error)
{
    if ((!access->uids.given && !access->gids.given) || peer->uid == 0 || peer->uid == geteuid() ||
        is_in(&access->uids, peer->uid) ||
        (access->gids.given && (is_in(&access->gids, peer->gid) || by_other_group(access, socket))))
        return true;
    error_set(
        error,
        "user %u (group %u) may not use this node: neither its --allow-uid nor its --allow-gid names one of yours",
        (unsigned)peer->uid, (unsigned)peer->gid);
    return false;
}
