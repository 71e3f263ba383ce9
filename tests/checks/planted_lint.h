/* SPDX-License-Identifier: Apache-2.0 */
/* A mistake in a header: clang-tidy must look into ours, too. */
#ifndef TESTS_CHECKS_PLANTED_LINT_H
#define TESTS_CHECKS_PLANTED_LINT_H

static inline double planted_third(int n)
{
    return n / 3;
}

#endif
