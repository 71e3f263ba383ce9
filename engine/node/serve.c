/* SPDX-License-Identifier: Apache-2.0 */
/* `millrace serve`: options, the directory, then the supervisor until it ends. */
#include "engine/node/serve.h"

#include "engine/node/identity.h"
#include "engine/node/logline.h"
#include "engine/node/options.h"
#include "engine/node/privileges.h"
#include "engine/node/quota.h"
#include "engine/node/supervisor.h"
#include "engine/node/worker.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

int serve_main(int argc, char **argv)
{
    struct options options;
    struct identity identity;
    struct mr_error error;
    int lock_fd; /* stays open, here and in workers, which inherit it */

    switch (options_parse(argc, argv, &options, &error)) {
    case OPTIONS_HELP:
        options_help(stdout);
        if (fflush(stdout) == 0 && !ferror(stdout))
            return 0;
        fprintf(stderr, "millrace: standard output could not be written: %s\n", strerror(errno));
        return 1;
    case OPTIONS_WRONG:
        fprintf(stderr, "millrace serve: %s\n", error.text);
        return 2;
    case OPTIONS_OK:
        break;
    }
    if (privileges_drop(options.user, options.dir, &error) != 0 ||
        identity_open(&options, &identity, &lock_fd, &error) != 0) {
        logline(LOGLINE_ERROR, 0, "%s", error.text);
        return 1;
    }
    options.partitions = identity.partitions; /* where it was not given, the directory's word counts */
    if (!options.memory_limit_given)
        options.memory_limit = quota_memory_default(options.partitions);
    struct supervisor_setup setup = {.options = &options, .identity = &identity, .worker = worker_run};
    return supervisor_run(&setup);
}
