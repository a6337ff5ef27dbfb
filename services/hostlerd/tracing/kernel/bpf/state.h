/* The maps, and what all parts of the tracer use. */
#pragma once

struct config config SEC(".data.config");
struct counts counts[CPUS] SEC(".data.counts");
u32 next_id[TABLES] SEC(".data.ids");
int level SEC(".data.ids") = -1; /* of the reader's pid namespace; the first event finds it */

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 24);
} events SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_RINGBUF);
	__uint(max_entries, 1 << 22);
} records SEC(".maps");

/* The id of what was told to the reader already, by its key. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1 << 16);
	__type(key, u64);
	__type(value, u32);
} told SEC(".maps");

/* Sockets that came out of accept. */
struct {
	__uint(type, BPF_MAP_TYPE_LRU_HASH);
	__uint(max_entries, 1 << 14);
	__type(key, u64);
	__type(value, u8);
} accepted SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__uint(max_entries, 1 << 16);
	__type(key, u32);
	__type(value, u8);
} tree SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_HASH);
	__uint(max_entries, 64);
	__type(key, char[16]);
	__type(value, u8);
} comms SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_CGROUP_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, u32);
} cgroup SEC(".maps");

/* What tells an open file from any other; a socket is another thing once it is connected. */
struct file_seen {
	u64 file, dentry, inode, inode_number, name_hash, root_number, socket;
	u32 id, pad;
};

#define SEEN 4 /* files that are kept at hand for each task, by the last bits of their fd */

struct task_state {
	u64 entry_ns;
	struct file_seen seen[SEEN];
	u64 args[6];
	u64 process_key;
	u64 comm[2];
	u32 process, pid, tid, kernel_pid;
	u32 file, path;
	u32 cwd, base; /* of files; base is that of a call that changes the cwd */
	s32 fd;
	u32 tree_version;
	u16 syscall;
	u8 is_in_call, is_32_bit, is_in_tree, has_name, pad[2];
};

struct {
	__uint(type, BPF_MAP_TYPE_TASK_STORAGE);
	__uint(map_flags, BPF_F_NO_PREALLOC);
	__type(key, int);
	__type(value, struct task_state);
} tasks SEC(".maps");

#define SLOT_BITS 12

/* Most tasks have their state here, by a hash of their address: the verifier makes the look-up a
 * handful of instructions, where task storage takes 40 ns. Who finds the slot taken has it there.
 */
struct slot {
	u64 owner; /* address of the task, 0 for nobody */
	struct task_state state;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1 << SLOT_BITS);
	__type(key, u32);
	__type(value, struct slot);
} slots SEC(".maps");

/* Room to put records together, for each CPU one: the stack holds 512 bytes, and on Linux 6.1 all
 * functions that call each other share them.
 */
struct room {
	struct process_record process;
	struct file_record file;
	struct path_record path;
	struct cgroup_record cgroup;
};

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct room);
} rooms SEC(".maps");

struct {
	__uint(type, BPF_MAP_TYPE_ARRAY);
	__uint(max_entries, 1);
	__type(key, u32);
	__type(value, struct data_record);
} data_rooms SEC(".maps");

#define COUNT(what) counts[bpf_get_smp_processor_id() & (CPUS - 1)].what++

/* The verifier computes with no pointer of the kernel that it knows as one: what is hashed or
 * compared is read as plain bytes, or made a number.
 */
#define READ(to, from) bpf_probe_read_kernel(&(to), sizeof(to), from)

/* The current task, as what the verifier knows and as a number. A call of any helper takes 7 ns
 * where returns are guarded against speculation, so this one is asked once.
 */
struct self {
	struct task_struct *task;
	u64 at;
};

/* Since Linux 6.2 the verifier can be told of which type a number points to. What lies there is
 * read by plain loads then, each at a twentieth of what the helper takes (1.5 ns; 30 ns).
 */
#ifdef BEFORE_6_2
#define CAN_CAST false
#define CAST(type, at) ((type *)(at))
#else
extern void *bpf_rdonly_cast(const void *at, u32 type) __ksym;
#define CAN_CAST true
#define CAST(type, at) ((type *)bpf_rdonly_cast((void *)(at), bpf_core_type_id_kernel(type)))
#endif

static __always_inline struct self self_of(void)
{
	struct self self;

	self.at = bpf_get_current_task();
	self.task = CAN_CAST ? CAST(struct task_struct, self.at) : bpf_get_current_task_btf();
	return self;
}

/* A pointer of the kernel as a number. Of two pointers the verifier computes the difference, and
 * nothing else, if the program may leak them (CAP_PERFMON).
 */
static __always_inline u64 number(const struct self *self, const void *pointer)
{
	u64 at = (u64)pointer;

	asm volatile("%0 -= %1" : "+r"(at) : "r"(self->task));
	return at + self->at;
}

/* A member, and one that is a pointer, of the structure of a type at a number. */
#define LOOK(type, at, member) \
	(CAN_CAST ? CAST(type, at)->member : BPF_CORE_READ((type *)(at), member))
#define LOOK_AT(self, type, at, member) \
	(CAN_CAST ? number(self, CAST(type, at)->member) : (u64)BPF_CORE_READ((type *)(at), member))

static __always_inline u64 mix(u64 hash, u64 value)
{
	hash = (hash ^ value) * 0x9e3779b97f4a7c15ULL;
	return hash ^ (hash >> 29);
}

static __always_inline u32 told_id(u64 key, u32 table)
{
	u32 *id = bpf_map_lookup_elem(&told, &key);

	return id && *id >= config.floor[table & 3] ? *id : 0;
}

static __always_inline u32 new_id(u32 table)
{
	return __sync_fetch_and_add(&next_id[table], 1) + 1;
}

/* Tell a record; only then may its id be used: 0 where it found no room. */
static __always_inline u32 tell(u64 key, u32 id, void *record, u64 bytes)
{
	if (bpf_ringbuf_output(&records, record, bytes, BPF_RB_NO_WAKEUP)) {
		COUNT(names_lost);
		return 0;
	}
	bpf_map_update_elem(&told, &key, &id, BPF_ANY);
	return id;
}

static __always_inline struct room *room(void)
{
	u32 cpu = bpf_get_smp_processor_id();

	return bpf_map_lookup_elem(&rooms, &cpu);
}

/* The number of a pid in the reader's namespace, 0 if it is not there. */
static __always_inline u32 number_of(struct pid *pid)
{
	struct upid upid = {};
	u32 inum;
	u32 at = __builtin_preserve_field_info(pid->numbers, BPF_FIELD_BYTE_OFFSET);

	if (level < 0 || BPF_CORE_READ(pid, level) < (u32)level)
		return 0;
	READ(upid, (void *)pid + at + (u64)(u32)level * sizeof(upid));
	inum = BPF_CORE_READ(upid.ns, ns.inum);
	return inum == config.pid_namespace ? upid.nr : 0;
}

static __always_inline u32 innermost_number(struct pid *pid)
{
	struct upid upid = {};
	u32 at = __builtin_preserve_field_info(pid->numbers, BPF_FIELD_BYTE_OFFSET);

	READ(upid, (void *)pid + at + (u64)BPF_CORE_READ(pid, level) * sizeof(upid));
	return upid.nr;
}

/* At which level the reader's pid namespace is: that of the first task found in it. */
static __noinline void find_level(struct task_struct *task)
{
	struct pid *pid = BPF_CORE_READ(task, thread_pid);
	u32 deepest = BPF_CORE_READ(pid, level);
	u32 at = __builtin_preserve_field_info(pid->numbers, BPF_FIELD_BYTE_OFFSET);

	for (u32 i = 0; i < 32; i++) {
		struct upid upid = {};

		if (i > deepest)
			return;
		READ(upid, (void *)pid + at + (u64)i * sizeof(upid));
		if (BPF_CORE_READ(upid.ns, ns.inum) == config.pid_namespace) {
			level = i;
			return;
		}
	}
}
