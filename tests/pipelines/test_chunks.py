"""How long clips are cut: which frames each chunk renders, cuts off and shows, and from what."""

from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from rayreel.config.conditions import Chain, Extension, ImageCondition
from rayreel.config.request import DEFAULT_NEGATIVE_PROMPT
from rayreel.errors import MediaError
from rayreel.pipelines.chunks import (
    STILL_NEGATIVE,
    plan_chunks,
    read_latents,
    shortest_chunk,
    source_handover,
)
from tests.pipelines.small import small, small_resolved

BACKWARD = Extension(path="clip.mkv", direction="backward")
FORWARD = Extension(path="clip.mkv")


def planned(num_frames, chunk_frames, overlap, trim="exact", **fields):
    chain = Chain(chunk_frames=chunk_frames, overlap=overlap, trim=trim)
    return plan_chunks(small(num_frames=num_frames, chain=chain, **fields), 8)


def lengths(chunks):
    return [(chunk.request.num_frames, chunk.skip, chunk.keep) for chunk in chunks]


@pytest.mark.parametrize(
    ("overlap", "exact", "whole"), [(1, 1, 8), (2, 9, 16), (3, 17, 24), (4, 25, 32)]
)
def test_a_joint_is_cut_by_what_the_overlap_decodes_to_or_by_whole_groups(overlap, exact, whole):
    assert Chain(overlap=overlap).trimmed(8) == exact
    assert Chain(overlap=overlap, trim="whole").trimmed(8) == whole


@pytest.mark.parametrize(
    ("asked", "chunks"),
    [
        ((33, 33, 2), [(33, 0, 33)]),
        ((41, 33, 2), [(33, 0, 33), (17, 9, 8)]),
        ((161, 33, 1), [(33, 0, 33), *[(33, 1, 32)] * 4]),
        ((121, 33, 2), [(33, 0, 33), *[(33, 9, 24)] * 3, (25, 9, 16)]),
        ((97, 33, 3), [(33, 0, 33), *[(33, 17, 16)] * 4]),
        ((505, 121, 2), [(121, 0, 121), *[(121, 9, 112)] * 3, (57, 9, 48)]),
        ((121, 33, 2, "whole"), [(33, 0, 33), *[(33, 16, 17)] * 5, (25, 16, 3)]),
    ],
)
def test_chunks_follow_each_other_and_the_last_one_is_as_short_as_it_can_be(asked, chunks):
    assert lengths(planned(*asked)) == chunks


@pytest.mark.parametrize(
    ("asked", "chunks"),
    [
        ((5, 33, 2), [(17, 9, 5)]),
        ((24, 33, 2), [(33, 9, 24)]),
        ((30, 33, 2), [(33, 9, 24), (17, 9, 6)]),
        ((20, 33, 2, "whole"), [(33, 16, 17), (25, 16, 3)]),
    ],
)
def test_what_is_added_behind_a_clip_starts_with_a_joint(asked, chunks):
    assert lengths(planned(*asked, extend=FORWARD)) == chunks


@pytest.mark.parametrize(
    ("asked", "chunks"),
    [
        ((16, 33, 2), [(33, 0, 16)]),
        ((40, 33, 2), [(33, 0, 16), (33, 0, 16), (25, 0, 8)]),
        ((37, 33, 2), [(33, 0, 16), (33, 0, 16), (25, 3, 5)]),
        ((1, 33, 1), [(17, 7, 1)]),
    ],
)
def test_what_is_added_before_a_clip_is_rounded_up_at_its_start(asked, chunks):
    assert lengths(planned(*asked, extend=BACKWARD)) == chunks


@pytest.mark.parametrize("extend", [None, FORWARD, BACKWARD], ids=["plain", "forward", "backward"])
@pytest.mark.parametrize("trim", ["exact", "whole"])
@pytest.mark.parametrize("overlap", [1, 2, 3, 4])
def test_chunks_show_exactly_the_frames_that_were_asked_for(overlap, trim, extend):
    chain = Chain(overlap=overlap, trim=trim)
    least = shortest_chunk(chain, 8, backward=extend is BACKWARD)
    for chunk_frames in range(least, least + 33, 8):
        for num_frames in range(chunk_frames + 8, 200, 8 if extend is None else 5):
            chunks = planned(num_frames, chunk_frames, overlap, trim, extend=extend)
            assert sum(chunk.keep for chunk in chunks) == num_frames
            for frames, skip, keep in lengths(chunks):
                assert frames % 8 == 1
                assert keep > 0
                assert skip + keep <= frames <= chunk_frames
            assert all(frames == chunk_frames for frames, _, _ in lengths(chunks[:-1]))


@pytest.mark.parametrize("extend", [None, FORWARD, BACKWARD], ids=["plain", "forward", "backward"])
def test_an_image_goes_to_the_chunk_that_shows_its_frame(extend):
    images = tuple(ImageCondition(path=f"{frame}.png", frame=frame) for frame in range(90))
    chunks = planned(90, 33, 2, extend=extend, images=images)
    in_time = chunks[::-1] if extend is BACKWARD else chunks
    pinned = [(int(i.path[:-4]), chunk, i.frame) for chunk in in_time for i in chunk.request.images]
    assert [frame for frame, _, _ in pinned] == [*range(90)]
    start = 0
    for chunk in in_time:
        frames = {frame: local for frame, owner, local in pinned if owner is chunk}
        assert frames == {start + i: chunk.skip + i for i in range(chunk.keep)}
        start += chunk.keep


def test_every_chunk_has_a_seed_of_its_own():
    assert [chunk.request.seed for chunk in planned(90, 33, 2, seed=5)] == [5, 6, 7, 8]
    last = 2**63 - 1
    assert [chunk.request.seed for chunk in planned(41, 33, 2, seed=last)] == [last, 0]


def test_later_chunks_must_not_stand_still(ledger):
    request = small_resolved(ledger.files, num_frames=41, chain={"chunk_frames": 33})
    first, second = (chunk.request.negative_prompt for chunk in plan_chunks(request, 8))
    assert first == DEFAULT_NEGATIVE_PROMPT
    assert second == f"{DEFAULT_NEGATIVE_PROMPT}, {STILL_NEGATIVE}"
    (added,) = planned(8, 33, 2, extend=FORWARD, negative_prompt="dull")
    assert added.request.negative_prompt == f"dull, {STILL_NEGATIVE}"
    assert planned(41, 33, 2)[1].request.negative_prompt is None


def test_a_chunk_is_a_request_of_its_own():
    for chunk in planned(41, 33, 2, extend=FORWARD, enhance=True):
        assert (chunk.request.extend, chunk.request.chain) == (None, Chain())
        assert not chunk.request.enhance


@pytest.mark.parametrize(
    ("asked", "reaches"),
    [
        ({}, [("start",), (), ("end",)]),
        ({"num_frames": 33}, [("start", "end")]),
        ({"extend": FORWARD}, [(), (), ("end",)]),
        ({"extend": FORWARD, "num_frames": 70}, [(), (), ()]),
        ({"extend": BACKWARD, "num_frames": 48}, [(), (), ("start",)]),
        ({"extend": BACKWARD, "num_frames": 45}, [(), (), ()]),
    ],
)
def test_a_chunk_reaches_an_end_of_the_clip_where_nothing_is_cut_off_there(asked, reaches):
    fields = {"num_frames": 81 if "extend" not in asked else 72, **asked}
    assert [chunk.reaches for chunk in planned(chunk_frames=33, overlap=2, **fields)] == reaches


def chain_of(ledger, **fields):
    return small_resolved(ledger.files, **fields).chain


def test_what_plays_no_part_in_a_clip_is_not_part_of_its_request(ledger):
    """So that it does not count for the identity of the clip."""
    chain: Any = {"chunk_frames": 33, "overlap": 3, "trim": "whole"}
    assert chain_of(ledger, num_frames=33, chain=chain) == Chain()
    assert chain_of(ledger, num_frames=41, chain=chain) == Chain(**chain)
    assert chain_of(ledger, extend=BACKWARD, num_frames=99, chain=chain).trim == "exact"
    for extend in (FORWARD, BACKWARD):
        one, other = (
            chain_of(ledger, extend=extend, num_frames=16, chain={"chunk_frames": longest})
            for longest in (33, 65)
        )
        assert one == other


def test_chunks_are_as_long_as_the_positions_reach_by_default(ledger):
    assert chain_of(ledger, num_frames=473) == Chain()
    assert chain_of(ledger, num_frames=481) == Chain(chunk_frames=473)
    assert chain_of(ledger, num_frames=249, fps=12) == Chain(chunk_frames=233)


def test_an_extension_of_one_chunk_is_planned_as_with_longer_ones(ledger):
    for extend in (FORWARD, BACKWARD):
        for num_frames in range(1, 60):
            request = small(extend=extend, num_frames=num_frames, chain={"chunk_frames": 89})
            short = request.model_copy(
                update={"chain": small_resolved(ledger.files, **dict(request)).chain}
            )
            assert lengths(plan_chunks(short, 8)) == lengths(plan_chunks(request, 8))


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_kept_latents_that_are_too_few_are_refused(ledger, tmp_path, direction):
    path = tmp_path / "few.safetensors"
    save_file({"video": torch.zeros(16, 2, 2, 4)}, path)
    extend = {"path": "clip.mkv", "latents": str(path), "direction": direction}
    request = small_resolved(ledger.files, extend=extend, chain={"overlap": 3}, audio=False)
    (chunk,) = plan_chunks(request, 8)
    least = 3 if direction == "forward" else 4
    with pytest.raises(MediaError, match=f"2 latent frames; expected at least {least} to hand 3"):
        source_handover(ledger, request, chunk.request)


def test_latents_that_cannot_be_read_are_a_fault_of_the_file(tmp_path):
    (tmp_path / "torn.safetensors").write_bytes(b"torn")
    for name in ("torn", "missing"):
        with pytest.raises(MediaError, match=name):
            read_latents(tmp_path / f"{name}.safetensors")
