/* What goes between the tracer in the kernel and its reader; `layout.py` says the same. */
#pragma once

#define CALLS 1024 /* By number; those of 32-bit programs from 512 on. */
#define CPUS 1024
#define EXCLUDED 4
#define TEXT_BYTES 2048
#define PATH_BYTES 512
#define DATA_BYTES 65535
#define IOVECS 16
#define RANGE_BYTES 16384 /* of a command line or an environment */

/* Ids of things are given out per table, from 1; 0 is none. */
enum table { PROCESSES, FILES, TEXTS, TABLES };

enum kind {
	KIND_PROCESS = 1,
	KIND_FILE = 2,
	KIND_PATH = 3,
	KIND_CGROUP = 4,
	KIND_DATA = 5,
};

enum event_flag { IS_32_BIT = 1, UNFINISHED = 2, ENTRY_LOST = 4, PATH_CUT = 8, DATA_CUT = 16,
		  DATA_WITHHELD = 32 };

enum call_flag { WANTED = 1, FD_IS_RESULT = 2, FD_AT_ENTRY = 4, NO_RETURN = 8, IS_ACCEPT = 16,
		 MOVES_CWD = 32 };

enum data_of { NO_DATA, DATA_BUFFER, DATA_IOVEC, DATA_MSGHDR };

enum option { BY_TREE = 1, BY_COMM = 2, BY_CGROUP = 4, FAILED_ONLY = 8, CMDLINES = 16,
	      ENVIRONS = 32 };

/* Which arguments of a call are what: their index + 1, 0 for none. */
struct call {
	u8 flags, fd, path, path2, dirfd, dirfd2, data, pad;
};

struct config {
	u32 is_on;
	u32 options;
	u32 pid_namespace; /* inum */
	u32 net_namespace; /* inum, 0 for all */
	u64 latency_ns;
	u64 seed;
	u32 payload_bytes;
	u32 excluded[EXCLUDED]; /* tgids */
	u32 floor[TABLES]; /* What has a lower id is to be told again. */
	u32 tree_version; /* counts what the reader has added to the tree */
	u32 pad;
	struct call calls[CALLS];
};

struct counts {
	u64 seen, lost, names_lost, data_lost, entries_lost, pad[3];
};

struct event {
	u64 entry_ns, latency_ns;
	u64 args[6];
	s64 result;
	u32 tid;
	s32 fd;
	u16 syscall, cpu, flags, pad;
	u32 process, file, path, path2, data, pad2;
};

struct head {
	u32 id;
	u8 kind, is_cut;
	u16 bytes; /* of the text at the end */
};

struct process_record {
	struct head head;
	u32 pid, ppid, vpid, uid, gid, loginuid, sid, tty;
	u64 start_boottime_ns;
	u32 exe, cwd; /* of files */
	u32 cgroup, cmdline, environ; /* of texts */
	u32 pad;
	char comm[16];
};

struct file_record {
	struct head head;
	u32 mode, device, rdev, magic;
	u64 inode;
	u16 family, protocol, socket_type;
	u8 state, is_server;
	u8 local_ip[16], remote_ip[16];
	u16 local_port, remote_port; /* remote_port in network order */
	u8 is_deleted, is_peer_path, pad[2];
	char text[TEXT_BYTES + 256]; /* Names from the leaf up, each ended by NUL. */
};

struct path_record {
	struct head head;
	u32 base; /* of files */
	char text[PATH_BYTES + 16];
};

struct cgroup_record {
	struct head head;
	char text[TEXT_BYTES + 256];
};

struct data_record {
	struct head head;
	char text[2 * (DATA_BYTES + 1)];
};
