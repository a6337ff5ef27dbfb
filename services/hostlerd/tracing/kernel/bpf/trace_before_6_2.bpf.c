/* The same tracer for kernels that know no bpf_rdonly_cast.
 *
 * Not one object for all: to find out that a function is missing, libbpf looks for it in the
 * kernel's modules, for which the kernel wants CAP_SYS_ADMIN.
 */
#define BEFORE_6_2
#include "trace.bpf.c"
