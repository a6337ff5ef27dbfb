"""Groups of LVM as they lie on disks of a guest, and as its own tool has told of them."""

from __future__ import annotations

import base64
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hostlerd.storage.kernel import lvm
from hostlerd.storage.kernel.lvm_text import parse
from hostlerd.storage.model.observed import LogicalVolume, VolumeGroup

# The first 2 MiB of /dev/vdd in a guest with Debian's kernel 6.1 and LVM 2.03.16, deflated, without
# the older descriptions in the ring: `vgcreate vg /dev/vdd /dev/vde`, then volumes: lin, mir
# (--type raid1), idle, pool (--type thin-pool). Asserted is what `lvm fullreport` said there.
_DEFLATED = (
    "c-"
    "rlp%Wm676o!*_Rc_h`=z>sCpb2^$4kc1lfEJKsS&<^sx>z>{fk2TI#fUeN6m<#mWL<YrpsNDyqOZ_RAE7hU#dhKZND~7"
    "_dOkqV%$cG1&#yB>&Svi2L;lY+ils{9Os(AC)qnZ(H;ZTS-l@n70?GS>!AY-K(&s)2l1ATXFUq-"
    "UscVql)U~1p?fT{R%5UC(qkZ!~U*FjL1^wK|zXL%K1VIo4K@jBD___PnAAGvmTRoSG--Uwu=%@QP?bjOHuWxtp-"
    "+%r45xR#U2!bF8f*=TjAP9mW2!bF8f*=TjAP9mW2!bF8f*=TjAP9mW2!bF8f*=TjAP9mW2!bF8f*>D8V)3sy+u(oXGZ%"
    "I#Z-"
    "&r+IlKV7GM|BUda{H_?fNiFRxQxAqM#KsTx8BYpI)GF6F+pdm|g26u1H&AEnY;l{yfvJbZQrsVyRKd{J_&%@tA%0+qLs"
    "b<^?x#G%M}*f-_gK>BXbS-"
    "k9t+NkQaXZ8dTdS`*S@uq&FeW@xcC(*3|Tqcp|^({*I)nlnm#XW`Q5D;i6L!<e?mR|7l08rT8Wz)r9Rc7!#sGpu2Ih;@"
    "cD%*582fXriBe4H3YhPyhPVxw_ZE}p03xh9|X-fJ%?Ss}*-"
    "=7?SwGFL<)r?9&2FFaN!gnP~8k%K&?*ERbDTA?C9$!OJKXvi~|C!`K$RO*9UJkE#S4f4#}l1BwPzV)W1j_n;Z3$>0R*`"
    "R4^55#WVf{p49A?eRVDD-n@(Cn5~rTs=ST>blLp;znF-qNavrWV`2H;QeS2`2f1lvhN#AYC?1{V2`1#3d{dEtloaVF27"
    "d#2ikCIohUInk>6ayV5&e2dSx19NK|tFwLxR?FZ9Hs*uaj%%bWA?#0$9*A5S^oHqS%BErIwHqgA7Iv@r{0#7e;Sr`b;1"
    "me7`4%|=aO5s*q5ieZ{HQONj+`G~tG%a@1U0UUYg3NKO@6IIZ$|z)$b;QitR&7_aOjf_zOx|dw_u3h28;*H!RvY;F$r|"
    "Ql7=Tu<ETL=`bKo=!ZI~^OB@lv^UY&kAXY-<bxAHBww<Yj>=hBvT)*wS5;yeUZ(nVOyN&qjFqztQmYXI|5Kb~Yip)I-"
    "WZQBx0Z4cNWGl#{Vg;``2vq)xZ!6C+aWVkrgyhzhiVW~F)r%xB&Y@eY-R5-(qbS+F%G!tl1WcW+EtZvNEA9?0-"
    "G<JM_7Nu(TGy9OV2gjEMJrc5@=1B~K=C#1+7A<(zJX=Fu=nbHw4i<It9>?#<y#BE46R)gx`+0q^L~1X6*MUw?A`rO^2?"
    "9x*K%f^&5cd~0gsN4nHSVY-"
    "|9L`^YnJR5uY)IvnlsyD*!ZFg>vDMrLZLYWy=15`JLznoTGwNz_c^5rdCQaS`hK}qjcc1ogj`vwf>9b5LALZRbRBmL?%"
    ">P<r{Z=ymCq?n$kq1*hrUS(qri;<ExdfLMFOcVEU1mUEvR<S%HTY$m7ti+Z0PpKRTvEA;N<)xP044KyES*Ds}Hm7s(x@"
    "Jtm=w5h1G1<glgwPg@&ljAlVEEoT$z-"
    "P;_CV*FV;goP4*^BzxVF^r^RZ#97VDN)MvRbO@Dt(FRMB=rg~&Y{0^NR)?CWPg?EI$q|+#^3D<J$!qQbUo|~5)MC@%$L"
    "sA;)rlEKR4gwZ3E3kee=k1dzZV5j1VI9#Jbc2Rgf_4G2`}d9)Bj0Ud_oJf1AS4|eUFJuUj)vnVE$yghwY`C9ljd+iy*`"
    "8Z;&c9%t)si<82_*5AE1|o_)bjLf_?`B(=`uVa)@i<2}5_@X+9Mr#yIkT1%`Wx@)`9>8~E}4cl9+cv|7*BXT5wB!lkw3"
    "j;LQkaPS4!go%ae6wAtoHox#$3wMvS}XI%=GfM}^b)#r1~K(P210<y5BZfMkL29D|Mxt-@4KzK_b<gR2o("
)
HEAD = zlib.decompress(base64.b85decode(_DEFLATED)).ljust(2 << 20, b"\0")
# The other physical volume has the same, and a label with a UUID of its own.
OTHER = HEAD.replace(b"7oXXFVPBcqo1pvLWdRuC4GBUd1VhmgsL", b"8VUeW1Qr80BdQJYd6kqv1JesBWmAD7rn")
VG = "ZiB7er-WjYZ-iEqk-gMFw-sNUo-kvxQ-caA0aA"
TEXT_AT, TEXT_BYTES = 4096 + 19456, 4124


def test_a_group_as_its_own_tool_told_of_it() -> None:
    groups, volumes = lvm.together({"vdd": lvm.description(HEAD), "vde": lvm.description(OTHER)})
    assert groups == (VolumeGroup(VG, "vg", 92274688, 46137344, ("vdd", "vde"), 0),)
    assert volumes == (
        LogicalVolume("0ISd5i-aaNV-2UtQ-zNmY-vWk2-9W4O-PUCN8R", VG, "lin", 4194304, "linear"),
        LogicalVolume("MPorf2-ug5z-PZhl-2pdv-HZ43-X0lf-t76NXm", VG, "mir", 8388608, "raid1"),
        LogicalVolume("aXo7fy-q1Yp-aJEw-CeA4-lP9R-kwD5-0pQcGh", VG, "idle", 4194304, "linear"),
        LogicalVolume("aR3d1Y-12qr-N5c2-y68p-j8vC-xWQX-qrcDf3", VG, "pool", 4194304, "thin-pool"),
    )


def test_a_physical_volume_that_is_missing_and_one_that_is_behind() -> None:
    (group,), _ = lvm.together({"vde": lvm.description(OTHER)})
    assert (group.devices, group.missing) == (("vde",), 1)
    old = HEAD.replace(b"seqno = 8", b"seqno = 7").replace(b"vg {", b"ol {")
    (group,), _ = lvm.together({"vdd": lvm.description(old), "vde": lvm.description(OTHER)})
    assert (group.name, group.devices) == ("vg", ("vdd", "vde"))


def test_a_description_that_goes_on_at_the_beginning_of_the_ring() -> None:
    area = bytearray(HEAD[4096 : 4096 + 1044480])
    text = HEAD[TEXT_AT : TEXT_AT + TEXT_BYTES]
    # The header's place of the text, 1000 bytes before the end of the ring.
    area[40:48] = (len(area) - 1000).to_bytes(8, "little")
    area[-1000:] = text[:1000]
    area[512 : 512 + len(text) - 1000] = text[1000:]
    moved = HEAD[:4096] + bytes(area) + HEAD[4096 + 1044480 :]
    assert lvm.description(moved) == lvm.description(HEAD)


def test_snapshots_and_what_they_are_of() -> None:
    text = HEAD[TEXT_AT : TEXT_AT + TEXT_BYTES].rstrip(b"\0 \n").decode()
    hidden = (
        'snapshot0 { id = "x" status = ["READ"] flags = [] segment_count = 1\n'
        'segment1 { start_extent = 0 extent_count = 1 type = "snapshot"\n'
        'origin = "lin" cow_store = "idle" } }\n'
    )
    tables = parse(text.replace("logical_volumes {", "logical_volumes {\n" + hidden, 1))
    described = lvm.described("vg", tables["vg"])
    assert {one.name: one.origin for one in described.volumes if one.origin} == {"idle": "lin"}


def test_one_that_is_in_no_group() -> None:
    area = bytearray(HEAD)
    area[4096 + 40 : 4096 + 64] = bytes(24)
    uuid, groups = lvm.description(bytes(area))
    assert (uuid, groups) == ("7oXXFV-PBcq-o1pv-LWdR-uC4G-BUd1-VhmgsL", ())


@given(
    st.lists(
        st.tuples(
            st.one_of(st.integers(512, 640), st.integers(4096, 4160), st.integers(TEXT_AT, 27676)),
            st.integers(0, 255),
        ),
        min_size=1,
        max_size=4,
    ),
    st.integers(0, 40000),
)
def test_damaged_ones_are_refused_or_read(damage: list[tuple[int, int]], cut: int) -> None:
    head = bytearray(HEAD[: len(HEAD) if cut > 30000 else cut])
    for at, value in damage:
        if at < len(head):
            head[at] = value
    try:
        said = lvm.description(bytes(head))
    except ValueError:
        return
    lvm.together({"vdd": said})


@pytest.mark.parametrize(
    "said",
    ["a {", "a", "a = [1", "a = }", "a = {", '"', "a b", "= 1", "a {" * 40, "a = ", "a 1 }"],
)
def test_texts_that_are_wrong(said: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        parse(said)


def test_values() -> None:
    said = 'a = "x \\"y\\" {" # no\nb { c = [1, -2, "z"]\n d = [] }\ne=0.5'
    assert parse(said) == {"a": 'x "y" {', "b": {"c": [1, -2, "z"], "d": []}, "e": "0.5"}
