/* SPDX-License-Identifier: Apache-2.0 */
/* What a loop that spins does between two looks at memory: leaves the core to whoever shares it for a moment. */
#ifndef IPC_RELAX_H
#define IPC_RELAX_H

static inline void relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

#endif
