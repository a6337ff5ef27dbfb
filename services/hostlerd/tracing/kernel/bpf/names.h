/* What open files, paths and processes are called: told once, and from then on known by an id. */
#pragma once

#define NAMES 40 /* names and mount points on the way up */

static __always_inline u64 file_of_fd(const struct self *self, s32 fd)
{
	struct files_struct *files = self->task->files;
	u64 at = (u64)files->fdt->fd + (u64)(u32)fd * 8, file = 0;
	u32 first = __builtin_preserve_field_info(files->fd_array, BPF_FIELD_BYTE_OFFSET);

	if (fd < 0 || (u32)fd >= files->fdt->max_fds)
		return 0;
	/* Any array of open files reads like the one inside of this structure. */
	if (CAN_CAST)
		return number(self, CAST(struct files_struct, at - first)->fd_array[0]);
	READ(file, (void *)at);
	return file;
}

struct place {
	u64 mnt, dentry;
};

static __always_inline struct place root_of(void)
{
	struct place root = {};

	READ(root, &bpf_get_current_task_btf()->fs->root);
	return root;
}

static __always_inline struct place cwd_of(const struct self *self)
{
	struct fs_struct *fs = self->task->fs;
	struct place cwd = { number(self, fs->pwd.mnt), number(self, fs->pwd.dentry) };

	return cwd;
}

/* A file has another name for who has another root. */
static __always_inline u64 root_number(const struct self *self)
{
	return self->task->fs->root.dentry->d_inode->i_ino;
}

struct climb {
	struct file_record *to;
	u64 dentry, mnt;
	struct place root;
	u32 is_at_top;
};

/* One step up: a name, or from the root of a mount to where it is mounted; 1 at the end.
 *
 * How far the text has come is kept in the record, of which the verifier knows nothing: kept in
 * a variable, it would follow every value that it can have.
 */
static long climb_step(u32 i, struct climb *climb)
{
	struct dentry *dentry = (void *)climb->dentry, *parent;
	struct vfsmount *mnt = (void *)climb->mnt;
	struct mount *inner = 0, *outer;
	u32 mnt_offset = __builtin_preserve_field_info(inner->mnt, BPF_FIELD_BYTE_OFFSET);
	u32 bytes = climb->to->head.bytes;
	long read;

	climb->is_at_top = 1;
	if (climb->dentry == climb->root.dentry && climb->mnt == climb->root.mnt)
		return 1;
	if (mnt && dentry == BPF_CORE_READ(mnt, mnt_root)) {
		inner = (void *)climb->mnt - mnt_offset;
		outer = BPF_CORE_READ(inner, mnt_parent);
		if (outer == inner)
			return 1;
		climb->dentry = (u64)BPF_CORE_READ(inner, mnt_mountpoint);
		climb->mnt = (u64)outer + mnt_offset;
		climb->is_at_top = 0;
		return 0;
	}
	parent = BPF_CORE_READ(dentry, d_parent);
	if (parent == dentry)
		return 1;
	climb->is_at_top = 0;
	read = bpf_probe_read_kernel_str(&climb->to->text[bytes & (TEXT_BYTES - 1)], 256,
					 BPF_CORE_READ(dentry, d_name.name));
	if (read <= 0)
		return 1;
	climb->to->head.bytes = bytes + read;
	climb->dentry = (u64)parent;
	return bytes + read >= TEXT_BYTES;
}

/* Write the names from a dentry up to the root of the current process. */
static __noinline u32 climb(struct file_record *to, u64 dentry, u64 mnt)
{
	struct climb climb = { to, dentry, mnt, root_of(), 0 };

	bpf_loop(NAMES, climb_step, &climb, 0);
	to->head.is_cut = !climb.is_at_top;
	return to->head.bytes;
}

static __always_inline u64 sock_of(const struct self *self, u64 file)
{
	/* Without a type of its own, it is a number already. */
	u64 socket = (u64)LOOK(struct file, file, private_data);

	return LOOK_AT(self, struct socket, socket, sk);
}

static __always_inline u64 socket_key(const struct self *self, u64 key, u64 at)
{
	u16 family = LOOK(struct sock, at, __sk_common.skc_family);
	u8 state = LOOK(struct sock, at, __sk_common.skc_state);

	key = mix(key, at);
	/* States on the way down have the tuple of before: nothing new to tell. */
	key = mix(key, (u64)family << 2 | (state == TCP_LISTEN) << 1 | (state == TCP_ESTABLISHED));
	if (family == AF_INET || family == AF_INET6) {
		u16 dport = LOOK(struct sock, at, __sk_common.skc_dport);
		u16 num = LOOK(struct sock, at, __sk_common.skc_num);
		u32 daddr = LOOK(struct sock, at, __sk_common.skc_daddr);
		u32 saddr = LOOK(struct sock, at, __sk_common.skc_rcv_saddr);

		key = mix(key, (u64)dport << 16 | num);
		key = mix(key, (u64)daddr << 32 | saddr);
	}
	if (family == AF_INET6) {
		u64 address[2] = {};

		READ(address, &((struct sock *)at)->__sk_common.skc_v6_daddr);
		key = mix(mix(key, address[0]), address[1]);
	}
	if (family == AF_UNIX) {
		key = mix(key, LOOK_AT(self, struct unix_sock, at, addr));
		key = mix(key, LOOK_AT(self, struct unix_sock, at, peer));
	}
	return key;
}

static __always_inline u64 file_key(const struct self *self, u64 at)
{
	u64 inode = LOOK_AT(self, struct file, at, f_inode);
	u64 dentry = LOOK_AT(self, struct file, at, f_path.dentry);
	u64 key = mix(mix(mix(config.seed, at), inode), dentry);

	key = mix(key, LOOK(struct inode, inode, i_ino));
	key = mix(key, LOOK(struct dentry, dentry, d_name.hash));
	key = mix(key, LOOK_AT(self, struct dentry, dentry, d_parent));
	key = mix(key, root_number(self));
	if ((LOOK(struct inode, inode, i_mode) & S_IFMT) == S_IFSOCK)
		key = socket_key(self, key, sock_of(self, at));
	return key;
}

/* Was this socket accepted? Not known for certain if that was before the trace: then a bound port
 * that was not picked by connect() tells. The kernel marks those it picked by fastreuse = -1.
 */
static __always_inline u8 is_server(u64 at)
{
	struct inet_connection_sock *icsk = (void *)at;
	struct sock *sk = (void *)at;
	u8 state = BPF_CORE_READ(sk, __sk_common.skc_state);

	if (state == TCP_LISTEN || bpf_map_lookup_elem(&accepted, &at))
		return 1;
	if (BPF_CORE_READ(sk, sk_protocol) != IPPROTO_TCP || state != TCP_ESTABLISHED)
		return 0;
	struct inet_bind_bucket *bucket = BPF_CORE_READ(icsk, icsk_bind_hash);

	return bucket && BPF_CORE_READ(bucket, fastreuse) >= 0;
}

static __always_inline u32 describe_unix(struct file_record *to, u64 at)
{
	struct unix_sock *sk = (void *)at;
	struct unix_address *address = BPF_CORE_READ(sk, addr);
	u32 bytes;

	if (!address) {
		sk = (void *)BPF_CORE_READ(sk, peer);
		address = sk ? BPF_CORE_READ(sk, addr) : 0;
		to->is_peer_path = 1;
	} else if (BPF_CORE_READ((struct sock *)sk, __sk_common.skc_state) == TCP_ESTABLISHED) {
		to->is_server = 1;
	}
	if (!address)
		return 0;
	bytes = BPF_CORE_READ(address, len) - 2;
	if (bytes > 108)
		return 0;
	bpf_probe_read_kernel(to->text, bytes, address->name[0].sun_path);
	return bytes;
}

static __noinline u32 describe_socket(struct file_record *to, u64 at)
{
	struct sock *sk = (void *)at;

	to->family = BPF_CORE_READ(sk, __sk_common.skc_family);
	to->state = BPF_CORE_READ(sk, __sk_common.skc_state);
	to->protocol = BPF_CORE_READ(sk, sk_protocol);
	to->socket_type = BPF_CORE_READ(sk, sk_type);
	if (to->family == AF_UNIX)
		return describe_unix(to, at);
	if (to->family != AF_INET && to->family != AF_INET6)
		return 0;
	to->is_server = is_server(at);
	to->local_port = BPF_CORE_READ(sk, __sk_common.skc_num);
	to->remote_port = BPF_CORE_READ(sk, __sk_common.skc_dport);
	if (to->family == AF_INET6) {
		READ(to->local_ip, &sk->__sk_common.skc_v6_rcv_saddr);
		READ(to->remote_ip, &sk->__sk_common.skc_v6_daddr);
	} else {
		bpf_probe_read_kernel(to->local_ip, 4, &sk->__sk_common.skc_rcv_saddr);
		bpf_probe_read_kernel(to->remote_ip, 4, &sk->__sk_common.skc_daddr);
	}
	return 0;
}

/* Tell of a place in the tree of files, `file` being 0 where it is not open. */
static __noinline u32 tell_file(u64 key, u64 file, u64 dentry_at, u64 mnt_at)
{
	struct dentry *dentry = (void *)dentry_at;
	struct self self = self_of();
	struct room *r = room();
	struct inode *inode;
	struct super_block *sb;
	u32 bytes = 0;

	if (!r)
		return 0;
	struct file_record *to = &r->file;

	__builtin_memset(to, 0, offsetof(struct file_record, text));
	inode = BPF_CORE_READ(dentry, d_inode);
	if (file)
		inode = BPF_CORE_READ((struct file *)file, f_inode);
	sb = BPF_CORE_READ(inode, i_sb);
	to->mode = BPF_CORE_READ(inode, i_mode);
	to->inode = BPF_CORE_READ(inode, i_ino);
	to->rdev = BPF_CORE_READ(inode, i_rdev);
	to->device = BPF_CORE_READ(sb, s_dev);
	to->magic = BPF_CORE_READ(sb, s_magic);
	if ((to->mode & S_IFMT) == S_IFSOCK && file) {
		bytes = describe_socket(to, sock_of(&self, file));
	} else if (BPF_CORE_READ(sb, s_flags) & SB_NOUSER) {
		/* Of a filesystem that is mounted nowhere: pipes, eventfd, memfd and so on. */
		long read = bpf_probe_read_kernel_str(to->text, 256,
						      BPF_CORE_READ(dentry, d_name.name));

		bytes = read > 0 ? read : 0;
	} else {
		bytes = climb(to, dentry_at, mnt_at);
		to->is_deleted = !BPF_CORE_READ(dentry, d_hash.pprev) &&
				 BPF_CORE_READ(dentry, d_parent) != dentry;
	}
	bytes &= 2 * TEXT_BYTES - 1;
	if (bytes > TEXT_BYTES + 256)
		bytes = TEXT_BYTES + 256;
	to->head.kind = KIND_FILE;
	to->head.bytes = bytes;
	to->head.id = new_id(FILES);
	return tell(key, to->head.id, to, offsetof(struct file_record, text) + bytes);
}

__noinline u32 file_id(u64 file)
{
	struct self self = self_of();
	u64 key, dentry, mnt;
	u32 id;

	if (!file)
		return 0;
	key = file_key(&self, file);
	id = told_id(key, FILES);
	if (id)
		return id;
	dentry = (u64)BPF_CORE_READ((struct file *)file, f_path.dentry);
	mnt = (u64)BPF_CORE_READ((struct file *)file, f_path.mnt);
	return tell_file(key, file, dentry, mnt);
}

static __always_inline u64 cwd_key(const struct self *self)
{
	struct dentry *dentry = self->task->fs->pwd.dentry;
	struct place cwd = cwd_of(self);
	u64 key = mix(mix(config.seed + 1, cwd.dentry), cwd.mnt);

	key = mix(mix(key, dentry->d_inode->i_ino), dentry->d_parent->d_inode->i_ino);
	return mix(mix(key, dentry->d_name.hash), root_number(self));
}

__noinline u32 cwd_id(void)
{
	struct self self = self_of();
	struct place cwd = cwd_of(&self);
	u64 key = cwd_key(&self);
	u32 id = told_id(key, FILES);

	return id ? id : tell_file(key, 0, cwd.dentry, cwd.mnt);
}

/* The text is followed by at least 8 bytes that are 0, and at most PATH_BYTES long. */
static __always_inline u64 hash_of(const char *text, u32 bytes, u64 hash)
{
	hash = mix(hash, bytes);
	for (u32 i = 0; i < PATH_BYTES / 8 && i * 8 < bytes; i++)
		hash = mix(hash, *(u64 *)(text + i * 8));
	return hash;
}

/* The id of a path; the highest bit of the answer says that it was cut. */
#define CUT (1U << 31)

/* `base` is the id of the folder that the path begins at, unless it begins at the root. */
__noinline u32 path_id(u64 at, u32 base, u32 is_of_kernel)
{
	struct room *r = room();
	u32 id, cut;
	u64 key;
	long bytes;

	if (!r || !at)
		return 0;
	struct path_record *to = &r->path;

	bytes = is_of_kernel ? bpf_probe_read_kernel_str(to->text, PATH_BYTES + 1, (void *)at) :
			       bpf_probe_read_user_str(to->text, PATH_BYTES + 1, (void *)at);
	if (bytes <= 0 || bytes > PATH_BYTES + 1)
		return 0;
	bytes--; /* the NUL */
	*(u64 *)(to->text + bytes) = 0;
	cut = bytes == PATH_BYTES ? CUT : 0;
	if (to->text[0] == '/')
		base = 0;
	key = hash_of(to->text, bytes, mix(config.seed + 2, base));
	id = told_id(key, TEXTS);
	if (id)
		return id | cut;
	to->base = base;
	to->head.id = new_id(TEXTS);
	to->head.kind = KIND_PATH;
	to->head.is_cut = !!cut;
	to->head.bytes = bytes;
	return tell(key, to->head.id, to, offsetof(struct path_record, text) + bytes) | cut;
}
