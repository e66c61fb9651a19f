/* Preloaded into a process, its CPU seems to have AVX2 and neither AVX-512 nor AMX.
 *
 * ATEN_CPU_CAPABILITY and ONEDNN_MAX_CPU_ISA narrow PyTorch and oneDNN only; ONNX Runtime, MKL,
 * OpenBLAS and OpenCV ask the CPU. Here the instruction they ask with, CPUID, raises SIGSEGV
 * (arch_prctl(ARCH_CPUID), Linux on CPUs whose flags in /proc/cpuinfo have cpuid_fault), and is
 * answered without those features. Nothing else becomes slower.
 *
 *     make test CPU=avx2
 */
#define _GNU_SOURCE
#include <cpuid.h>
#include <dlfcn.h>
#include <signal.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <ucontext.h>
#include <unistd.h>

#define ARCH_CPUID 0x1012
#define BIT(n) (1u << (n))

typedef int (*sigaction_t)(int, const struct sigaction *, struct sigaction *);

static struct sigaction others; /* what this process believes to be its handler of SIGSEGV */

/* A system call that does not touch errno: it is made within a signal handler. */
static long allow_cpuid(long allowed) {
  long result;
  register long code __asm__("rdi") = ARCH_CPUID, argument __asm__("rsi") = allowed;
  __asm__ volatile("syscall"
                   : "=a"(result)
                   : "a"(SYS_arch_prctl), "r"(code), "r"(argument)
                   : "rcx", "r11", "memory");
  return result;
}

static void answer(greg_t *registers) {
  unsigned leaf = registers[REG_RAX], part = registers[REG_RCX], a, b, c, d;
  allow_cpuid(1);
  __cpuid_count(leaf, part, a, b, c, d);
  allow_cpuid(0);
  if (leaf == 7 && part == 0) {
    b &= ~(BIT(16) | BIT(17) | BIT(21) | BIT(26) | BIT(27) | BIT(28) | BIT(30) | BIT(31));
    c &= ~(BIT(1) | BIT(6) | BIT(11) | BIT(12) | BIT(14));
    d &= ~(BIT(2) | BIT(3) | BIT(8) | BIT(22) | BIT(23) | BIT(24) | BIT(25));
  }
  if (leaf == 7 && part == 1) { /* AVX-VNNI, AVX512-BF16, AMX-FP16, AVX-IFMA */
    a &= ~(BIT(4) | BIT(5) | BIT(21) | BIT(23));
    d = 0;
  }
  if (leaf == 0x1d || leaf == 0x1e || leaf == 0x24) /* tiles, AVX10 */
    a = b = c = d = 0;
  registers[REG_RAX] = a;
  registers[REG_RBX] = b;
  registers[REG_RCX] = c;
  registers[REG_RDX] = d;
  registers[REG_RIP] += 2; /* the length of CPUID */
}

static void handler(int number, siginfo_t *info, void *context) {
  greg_t *registers = ((ucontext_t *)context)->uc_mcontext.gregs;
  unsigned char *code = (unsigned char *)registers[REG_RIP];
  if (info->si_code == SI_KERNEL && code[0] == 0x0f && code[1] == 0xa2) {
    answer(registers);
  } else if (others.sa_flags & SA_SIGINFO && others.sa_sigaction) {
    others.sa_sigaction(number, info, context);
  } else if (others.sa_handler != SIG_DFL && others.sa_handler != SIG_IGN) {
    others.sa_handler(number);
  } else {
    struct sigaction usual = {.sa_handler = SIG_DFL};
    ((sigaction_t)dlsym(RTLD_NEXT, "sigaction"))(SIGSEGV, &usual, NULL);
  }
}

/* Python's faulthandler and others set one for SIGSEGV: theirs is called after ours. */
int sigaction(int number, const struct sigaction *wanted, struct sigaction *before) {
  if (number != SIGSEGV)
    return ((sigaction_t)dlsym(RTLD_NEXT, "sigaction"))(number, wanted, before);
  struct sigaction known = others;
  if (wanted) others = *wanted;
  if (before) *before = known;
  return 0;
}

sighandler_t signal(int number, sighandler_t wanted) {
  struct sigaction action = {.sa_handler = wanted, .sa_flags = SA_RESTART}, before;
  return sigaction(number, &action, &before) ? SIG_ERR : before.sa_handler;
}

__attribute__((constructor)) static void begin(void) {
  struct sigaction ours = {.sa_sigaction = handler,
                           .sa_flags = SA_SIGINFO | SA_NODEFER | SA_ONSTACK};
  ((sigaction_t)dlsym(RTLD_NEXT, "sigaction"))(SIGSEGV, &ours, NULL);
  if (allow_cpuid(0) != 0) {
    fputs("This CPU or kernel has no CPUID faulting: run without CPU=avx2.\n", stderr);
    _exit(2);
  }
}
