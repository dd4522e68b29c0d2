"""The mount grammar: every sentence of it, and that nothing else comes through."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minidock.errors import MountSpecError
from minidock.model.mounts import (
    PROPAGATIONS,
    Mount,
    parse_mount_flag,
    parse_size,
    parse_tmpfs_flag,
    parse_volume_flag,
)

CWD = "/work/here"


def volume(text: str) -> Mount:
    return parse_volume_flag(text, cwd=CWD)


def refused(text: str) -> MountSpecError:
    with pytest.raises(MountSpecError) as caught:
        volume(text)
    assert caught.value.exit_status == 125
    return caught.value


def mount_refused(text: str) -> MountSpecError:
    with pytest.raises(MountSpecError) as caught:
        parse_mount_flag(text)
    return caught.value


class TestVolumeFlag:
    def test_one_field_is_an_anonymous_volume(self) -> None:
        assert volume("/data") == Mount("volume", "", "/data", create=True, anonymous=True, origin="-v")

    def test_a_name_is_a_volume_that_is_created(self) -> None:
        assert volume("vol.1:/data") == Mount("volume", "vol.1", "/data", create=True, origin="-v")

    def test_an_absolute_source_is_a_bind_that_is_created(self) -> None:
        assert volume("/host:/data") == Mount("bind", "/host", "/data", create=True, origin="-v")

    @pytest.mark.parametrize(
        ("text", "source"),
        [
            ("./r:/d", "/work/here/r"),
            (".:/d", "/work/here"),
            ("../up:/d", "/work/up"),
            (".hidden/x:/d", "/work/here/.hidden/x"),
            ("/a/../b/.//c/:/d", "/b/c"),
            ("/:/d", "/"),
        ],
    )
    def test_a_source_that_starts_with_a_dot_or_slash_is_a_host_path(self, text: str, source: str) -> None:
        assert (volume(text).type, volume(text).source) == ("bind", source)

    @pytest.mark.parametrize("name", ["r", "r/x", "-a", "_a", "a b", "a" * 256, "~/x", "é1"])
    def test_what_is_no_name_and_no_path_gets_the_hint(self, name: str) -> None:
        error = refused(f"{name}:/d")
        assert "invalid volume name" in error.message
        assert name[:250] in error.message
        assert "to pass a host directory, use an absolute path" in error.hint

    @pytest.mark.parametrize(
        "text", ["/foo:rw", "/foo:ro,nocopy", "a1:b1:c1:d1", "", ":", ":/x", "aa:", "aa::ro", "aa\0:/x"]
    )
    def test_invalid_specifications(self, text: str) -> None:
        assert refused(text).message.startswith("invalid volume specification: ")

    @pytest.mark.parametrize(
        "mode", ["rw,ro", "x", "ro,", "z,Z", "rprivate,shared", "nocopy,nocopy", "RO", "cached,delegated"]
    )
    def test_invalid_modes(self, mode: str) -> None:
        assert refused(f"aa:/d:{mode}").message == f"invalid mode: {mode}"
        assert refused(f"/aa:/d:{mode}").message == f"invalid mode: {mode}"

    def test_the_mode_is_looked_at_before_the_name(self) -> None:
        assert refused("r:/d:rw,ro").message == "invalid mode: rw,ro"

    def test_options_take_effect(self) -> None:
        assert volume("aa:/d:ro,nocopy,z,cached") == Mount(
            "volume", "aa", "/d", read_only=True, nocopy=True, create=True, origin="-v"
        )
        assert volume("/h:/d:ro,Z,rslave").propagation == "rslave"
        assert volume("/h:/d").propagation == "rprivate"
        assert not volume("/h:/d:rw").read_only

    def test_an_empty_mode_is_none_as_in_docker(self) -> None:
        assert volume("aa:/d:") == volume("aa:/d")

    @pytest.mark.parametrize("word", PROPAGATIONS)
    def test_propagation_is_for_host_directories(self, word: str) -> None:
        assert volume(f"/h:/d:{word}").propagation == word
        assert word in refused(f"vol:/d:{word}").message

    def test_nocopy_is_for_volumes(self) -> None:
        assert "nocopy" in refused("/h:/d:nocopy").message

    @pytest.mark.parametrize("target", ["d", "./d", "d/e"])
    def test_targets_are_absolute(self, target: str) -> None:
        assert "must be absolute" in refused(f"aa:{target}").message
        assert "must be absolute" in refused(target).message

    @pytest.mark.parametrize("target", ["/", "//", "/x/..", "/."])
    def test_targets_are_not_the_root(self, target: str) -> None:
        assert "can't be '/'" in refused(f"aa:{target}").message

    def test_targets_are_made_clean(self) -> None:
        assert volume("aa://d//e/./f/").target == "/d/e/f"


class TestMountFlag:
    def test_a_named_volume_is_never_created(self) -> None:
        expected = Mount("volume", "name", "/d")
        assert parse_mount_flag("type=volume,source=name,target=/d") == expected
        assert parse_mount_flag("src=name,dst=/d") == expected
        assert not expected.create

    def test_without_a_source_the_volume_is_anonymous(self) -> None:
        assert parse_mount_flag("type=volume,destination=/d") == Mount("volume", "", "/d", anonymous=True)

    def test_keys_and_types_know_no_case_and_the_last_of_a_key_counts(self) -> None:
        assert parse_mount_flag("TYPE=Bind,Src=/a,SRC=/b,Dst=/d,ReadOnly") == Mount("bind", "/b", "/d", read_only=True)

    @pytest.mark.parametrize(
        ("text", "read_only"),
        [("ro", True), ("readonly=1", True), ("ro=true", True), ("readonly=0", False), ("ro=false", False)],
    )
    def test_read_only(self, text: str, read_only: bool) -> None:
        assert parse_mount_flag(f"src=vol,dst=/d,{text}").read_only is read_only

    def test_a_boolean_is_one_of_four_words(self) -> None:
        assert "not one of 1, 0, true, false" in mount_refused("src=vol,dst=/d,ro=yes").message

    def test_quoted_fields_hold_commas_and_quotes(self) -> None:
        assert parse_mount_flag('type=bind,"src=/a,""b""",dst=/d').source == '/a,"b"'

    @pytest.mark.parametrize(
        "text", ['"src=aa', '"src=aa"x,dst=/d', 'src=a"b,dst=/d', "src=aa,dst=/d\n", "src=a\0,dst=/d"]
    )
    def test_records_that_are_not_csv(self, text: str) -> None:
        assert mount_refused(text).message.startswith("invalid mount specification")

    @pytest.mark.parametrize("text", ["src =aa", "src= aa", " src=aa", "src=aa "])
    def test_no_blanks_around_keys_and_values(self, text: str) -> None:
        assert "blanks" in mount_refused(f"{text},dst=/d").message

    def test_an_empty_field_is_named(self) -> None:
        assert "empty" in mount_refused("type=volume,,dst=/d").message

    @pytest.mark.parametrize("field", ["sauce=aa", "uid=0", "bind-nonrecursive"])
    def test_unknown_keys(self, field: str) -> None:
        error = mount_refused(f"dst=/d,{field}")
        assert "unknown option" in error.message
        assert "volume-subpath" in error.hint

    def test_values_are_needed(self) -> None:
        assert "key=value" in mount_refused("dst=/d,src").message
        assert "value is empty" in mount_refused("dst=/d,src=").message

    def test_a_target_is_needed(self) -> None:
        assert "no target" in mount_refused("type=tmpfs").message
        assert "must be absolute" in mount_refused("src=aa,dst=d").message
        assert "can't be '/'" in mount_refused("src=aa,dst=/").message

    def test_types(self) -> None:
        assert "'npipe'" in mount_refused("type=npipe,dst=/d").message

    @pytest.mark.parametrize(
        ("kind", "option", "group"),
        [
            ("tmpfs", "bind-propagation=shared", "bind"),
            ("bind,src=/a", "tmpfs-size=1m", "tmpfs"),
            ("volume", "bind-create-src", "bind"),
            ("bind,src=/a", "volume-nocopy", "volume"),
            ("tmpfs", "image-subpath=x", "image"),
        ],
    )
    def test_options_of_another_type(self, kind: str, option: str, group: str) -> None:
        error = mount_refused(f"type={kind},dst=/d,{option}")
        assert error.message == f"cannot mix '{group}-*' options with mount type '{kind.partition(',')[0]}'"

    def test_volume_names_are_checked(self) -> None:
        assert "to pass a host directory" in mount_refused("src=/h,dst=/d").hint
        assert "invalid volume name" in mount_refused("src=x,dst=/d").message

    def test_volume_options(self) -> None:
        mount = parse_mount_flag("src=vol,dst=/d,volume-nocopy,volume-subpath=a/./b,volume-label=k=v,volume-label=x")
        assert (mount.nocopy, mount.subpath, mount.labels) == (True, "a/b", (("k", "v"), ("x", "")))
        assert parse_mount_flag("src=vol,dst=/d,volume-driver=local,volume-subpath=.").subpath == ""

    @pytest.mark.parametrize("option", ["volume-driver=nfs", "volume-opt=type=nfs"])
    def test_what_is_not_there_yet_is_refused_by_name(self, option: str) -> None:
        assert option.partition("=")[2] in mount_refused(f"src=vol,dst=/d,{option}").message

    @pytest.mark.parametrize("path", ["../x", "..", "a/../../b", "/abs"])
    def test_subpaths_stay_inside(self, path: str) -> None:
        assert "stay inside" in mount_refused(f"src=vol,dst=/d,volume-subpath={path}").message
        assert "stay inside" in mount_refused(f"type=image,src=i,dst=/d,image-subpath={path}").message

    def test_a_subpath_needs_a_named_volume(self) -> None:
        assert "named volume" in mount_refused("dst=/d,volume-subpath=a").message

    def test_bind(self) -> None:
        assert parse_mount_flag("type=bind,src=/h/../i,dst=/d,bind-propagation=rshared,bind-create-src") == Mount(
            "bind", "/i", "/d", propagation="rshared", create=True
        )
        assert not parse_mount_flag("type=bind,src=/h,dst=/d,bind-create-src=0").create
        assert parse_mount_flag("type=bind,src=./x,dst=/d", cwd=CWD).source == "/work/here/x"

    def test_bind_sources_are_absolute(self) -> None:
        assert "source is required" in mount_refused("type=bind,dst=/d").message
        assert "'x'" in mount_refused("type=bind,src=x,dst=/d").message
        assert "'./x'" in mount_refused("type=bind,src=./x,dst=/d").message

    def test_bind_recursion(self) -> None:
        for word in ("enabled", "disabled"):
            assert parse_mount_flag(f"type=bind,src=/h,dst=/d,bind-recursive={word}").recursive == word
        for word in ("writable", "readonly"):
            assert parse_mount_flag(f"type=bind,src=/h,dst=/d,ro,bind-recursive={word}").recursive == word
            assert "requires 'readonly'" in mount_refused(f"type=bind,src=/h,dst=/d,bind-recursive={word}").message
        shared = "type=bind,src=/h,dst=/d,ro,bind-propagation=shared,bind-recursive"
        assert "requires 'bind-propagation=rprivate'" in mount_refused(f"{shared}=readonly").message
        assert parse_mount_flag(f"{shared}=writable").propagation == "shared"

    def test_bind_words(self) -> None:
        assert "'wild'" in mount_refused("type=bind,src=/h,dst=/d,bind-propagation=wild").message
        assert "'wild'" in mount_refused("type=bind,src=/h,dst=/d,bind-recursive=wild").message

    def test_tmpfs(self) -> None:
        mount = parse_mount_flag("type=tmpfs,dst=/d,tmpfs-size=64m,tmpfs-mode=0700,ro")
        assert mount.options == ("noexec", "nosuid", "nodev", "size=67108864", "mode=0700")
        assert mount.read_only
        assert "no source" in mount_refused("type=tmpfs,src=aa,dst=/d").message
        assert "'big'" in mount_refused("type=tmpfs,dst=/d,tmpfs-size=big").message
        assert "'0800'" in mount_refused("type=tmpfs,dst=/d,tmpfs-mode=0800").message

    def test_image(self) -> None:
        mount = parse_mount_flag("type=image,src=busybox:1,dst=/d,image-subpath=etc")
        assert mount == Mount("image", "busybox:1", "/d", read_only=True, subpath="etc")
        assert "source is required" in mount_refused("type=image,dst=/d").message


class TestTmpfsFlag:
    def test_defaults(self) -> None:
        expected = Mount("tmpfs", "", "/run", options=("noexec", "nosuid", "nodev"), origin="--tmpfs")
        assert parse_tmpfs_flag("/run") == parse_tmpfs_flag("/run:") == expected

    def test_flags_take_defaults_back_and_the_last_value_counts(self) -> None:
        mount = parse_tmpfs_flag(
            "/run:rw,exec,dev,nodev,size=1m,size=50%,mode=1777,uid=3,gid=4,nr_inodes=10k,nr_blocks=2"
        )
        assert mount.options == (
            *("nosuid", "exec", "nodev", "size=50%"),
            *("mode=1777", "uid=3", "gid=4", "nr_inodes=10k", "nr_blocks=2"),
        )
        assert not mount.read_only
        assert parse_tmpfs_flag("/run:ro").read_only

    @pytest.mark.parametrize("option", ["size=", "size=1x", "mode=9", "uid=root", "bogus", "exec=1", ""])
    def test_unknown_options(self, option: str) -> None:
        with pytest.raises(MountSpecError, match="invalid tmpfs option"):
            parse_tmpfs_flag(f"/run:rw,{option}")

    @pytest.mark.parametrize("target", ["run", "/", ""])
    def test_targets(self, target: str) -> None:
        with pytest.raises(MountSpecError, match="invalid mount path"):
            parse_tmpfs_flag(target)


@pytest.mark.parametrize(
    ("text", "count"),
    [("0", 0), ("1024", 1024), ("64m", 64 << 20), ("1.5K", 1536), ("2GB", 2 << 30), ("1 TiB", 1 << 40)],
)
def test_sizes(text: str, count: int) -> None:
    assert parse_size(text) == count


@pytest.mark.parametrize("text", ["", "m", "-1", "1x", "1,5m", "1e3"])
def test_sizes_that_are_none(text: str) -> None:
    with pytest.raises(ValueError, match="invalid size"):
        parse_size(text)


def test_a_huge_size_loses_no_digit() -> None:
    assert parse_size("9007199254740993") == 9007199254740993


def check(mount: Mount) -> None:
    """What every mount that comes through the grammar is."""
    assert mount.target.startswith("/")
    assert mount.target != "/"
    assert not {"", ".", ".."} & set(mount.target[1:].split("/"))
    assert mount.type in {"volume", "bind", "tmpfs", "image"}
    if mount.type == "bind":
        assert mount.source.startswith("/")
    if mount.type == "volume":
        assert mount.anonymous == (not mount.source)
        assert "/" not in mount.source
    assert not mount.subpath.startswith(("/", ".."))


words = st.text(alphabet=list('ab/.:,="\n\0 zrow'), max_size=24)


@given(words)
def test_any_volume_text_is_a_sound_mount_or_an_error(text: str) -> None:
    try:
        mount = volume(text)
    except MountSpecError:
        return
    check(mount)
    assert mount.create


keys = st.sampled_from(
    ["type", "src", "dst", "target", "ro", "readonly", "volume-subpath", "volume-nocopy", "bind-create-src", "SRC", "x"]
)
values = st.sampled_from(["bind", "volume", "tmpfs", "/a", "/a/../b", "..", "name", "true", "", " ", "a=b", '"', "1"])
fields = st.one_of(keys, st.builds("{}={}".format, keys, values))


@given(st.lists(fields, max_size=5).map(",".join))
def test_any_mount_text_is_a_sound_mount_or_an_error(text: str) -> None:
    try:
        mount = parse_mount_flag(text)
    except MountSpecError:
        return
    check(mount)
    assert not (mount.type == "volume" and mount.create)


@given(st.lists(st.text(alphabet=list('ab",='), max_size=6), min_size=1, max_size=3))
def test_a_value_that_is_quoted_for_csv_comes_back(parts: list[str]) -> None:
    source = "/" + "/".join(parts) + "/x"
    quoted = '"' + f"source={source}".replace('"', '""') + '"'
    expected = "/" + "/".join(part for part in source.split("/") if part)
    assert parse_mount_flag(f"type=bind,{quoted},target=/d").source == expected


def test_an_error_is_one_sentence_with_a_hint() -> None:
    assert str(refused("/foo:rw")) == (
        "invalid volume specification: '/foo:rw' (the form is [SOURCE:]TARGET[:OPTIONS])"
    )
