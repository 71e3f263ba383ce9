/* SPDX-License-Identifier: Apache-2.0 */
/* `millrace serve`: what the command line calls. */
#ifndef ENGINE_NODE_SERVE_H
#define ENGINE_NODE_SERVE_H

/* argv[0] is "serve". Returns the exit status: 0 stopped in an orderly way, 1 failed, 2 usage. */
int serve_main(int argc, char **argv);

#endif
