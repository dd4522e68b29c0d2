"""The part of EROFS's on-disk format that a layer's index uses: metadata in one image, content in one other device.

An index holds superblock, inodes, names and attributes; a file's content is a run of blocks of the layer's tar, which
is the image's one extra device. Blocks are 512 bytes, as tar's are. An inode's number ("nid") is its offset in the
image divided by 32.

Sources: Documentation/filesystems/erofs.rst and fs/erofs/erofs_fs.h of Linux, whose names are in the comments.
"""

from __future__ import annotations

import struct

BLOCK_BITS = 9
BLOCK = 1 << BLOCK_BITS
SLOT_BITS = 5
SLOT = 1 << SLOT_BITS

# Block addresses have 32 bits, and the last of them means "no block" (EROFS_NULL_ADDR).
MAX_BLOCKS = 0xFFFF_FFFF

# struct erofs_inode_extended: i_format, i_xattr_icount, i_mode, i_reserved, i_size, i_u (a block or a device), i_ino,
# i_uid, i_gid, i_mtime, i_mtime_nsec, i_nlink, i_reserved2.
INODE = struct.Struct("<HHHHQIIIIqIIQQ")
INODE_SIZE = INODE.size
# i_format: bit 0 says that the inode is an extended one, bits 1 to 3 where its content lies.
PLAIN = 1
INLINE = 2 << 1 | 1

# struct erofs_dirent: nid, nameoff, file_type, reserved.
DIRENT = struct.Struct("<QHBx")
DIRENT_SIZE = DIRENT.size
MAX_NAME = 255
MAX_TARGET = 4095

# struct erofs_xattr_ibody_header (h_name_filter, h_shared_count, h_reserved2) is all zero in an index: the attributes
# follow it. struct erofs_xattr_entry: e_name_len, e_name_index, e_value_size.
XATTR_HEADER_SIZE = 12
XATTR_ENTRY = struct.Struct("<BBH")
XATTR_ENTRY_SIZE = XATTR_ENTRY.size
MAX_XATTR_VALUE = 0xFFFF
# i_xattr_icount: the header counts as one, each four bytes behind it as another.
MAX_XATTR_COUNT = 0xFFFF

# Of a device number (the kernel's new_encode_dev).
MAX_MAJOR = 0xFFF
MAX_MINOR = 0xFFFFF

# EROFS_XATTR_INDEX_*: attributes that are named in full, and name spaces.
XATTR_WHOLE = {"system.posix_acl_access": 2, "system.posix_acl_default": 3}
XATTR_PREFIXES = {"user.": 1, "trusted.": 4, "security.": 6}

# EROFS_FT_* by st_mode's type (st_mode >> 12); 0 for what a layer cannot hold.
REGULAR_TYPE = 1
DIRECTORY_TYPE = 2
SYMLINK_TYPE = 7
DEVICE_TYPES = frozenset({3, 4})
FILE_TYPES = (0, 5, 3, 0, DIRECTORY_TYPE, 0, 4, 0, REGULAR_TYPE, 0, SYMLINK_TYPE, 0, 0, 0, 0, 0)

# struct erofs_super_block, all its 128 bytes: magic, checksum, feature_compat, blkszbits, sb_extslots, rootnid_2b,
# inos, epoch, fixed_nsec, blocks_lo, meta_blkaddr, xattr_blkaddr, uuid, volume_name, feature_incompat,
# available_compr_algs, extra_devices, devt_slotoff, and nothing of what follows.
_SUPER_OFFSET = 1024
_SUPER = struct.Struct("<IIIBBHQQIIII16s16sIHHH38x")
_MAGIC = 0xE0F5E1E2
_COMPAT_MTIME = 0x2
_INCOMPAT_DEVICE_TABLE = 0x8
_UUID_OFFSET = _SUPER_OFFSET + 48
_UUID_SIZE = 16

# struct erofs_deviceslot: tag, blocks_lo, uniaddr_lo. Slots are counted from the image's start.
_DEVICE = struct.Struct("<64sII56x")
_DEVICE_SLOT = (_SUPER_OFFSET + _SUPER.size) // _DEVICE.size

# The root's inode begins a block, so that as much as can follow an inode follows this one.
HEAD_SIZE = 3 * BLOCK
_PADDING = bytes(HEAD_SIZE - (_DEVICE_SLOT + 1) * _DEVICE.size)
ROOT_NID = HEAD_SIZE >> SLOT_BITS
_COUNTS = struct.Struct("<Q12xI")
_COUNTS_OFFSET = _SUPER_OFFSET + 16


def head(*, blocks: int, inodes: int, tar_blocks: int, uuid: bytes = b"") -> bytes:
    """The image's first HEAD_SIZE bytes: superblock and device table of an index of ``blocks`` blocks that holds
    ``inodes`` inodes, the root first. Block addresses from ``blocks`` on are the tar's."""
    super_block = _SUPER.pack(
        _MAGIC, 0, _COMPAT_MTIME, BLOCK_BITS, 0, ROOT_NID, inodes, 0, 0, blocks, 0, 0,
        uuid, b"", _INCOMPAT_DEVICE_TABLE, 0, 1, _DEVICE_SLOT,
    )  # fmt: skip
    return b"".join((bytes(_SUPER_OFFSET), super_block, _DEVICE.pack(b"", tar_blocks, blocks), _PADDING))


def counts(image: bytes) -> tuple[int, int]:
    """(inodes, blocks) as the superblock of an image of at least HEAD_SIZE bytes gives them."""
    inodes, blocks = _COUNTS.unpack_from(image, _COUNTS_OFFSET)
    return inodes, blocks


def uuid_of(image: bytes) -> bytes:
    """The UUID in the superblock of an image of at least HEAD_SIZE bytes; all zero when it has none."""
    return image[_UUID_OFFSET : _UUID_OFFSET + _UUID_SIZE]


def with_uuid(image: bytes, uuid: bytes) -> tuple[bytes, memoryview]:
    """The image with ``uuid``, of 16 bytes, in its superblock: what ends with the UUID, and what follows."""
    return image[:_UUID_OFFSET] + uuid, memoryview(image)[_UUID_OFFSET + _UUID_SIZE :]


def encode_device(major: int, minor: int) -> int:
    """A device number as inodes hold it (the kernel's new_encode_dev): 12 bits of ``major``, 20 of ``minor``."""
    return minor & 0xFF | major << 8 | (minor & ~0xFF) << 12


def decode_device(value: int) -> tuple[int, int]:
    """(major, minor) of an inode's device number (the kernel's new_decode_dev)."""
    return (value & 0xFFF00) >> 8, value & 0xFF | value >> 12 & 0xFFF00
