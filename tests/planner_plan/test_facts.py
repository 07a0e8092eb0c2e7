"""Catalogs, profiles, traces: what is accepted, what is refused and where."""

import math

import pytest

from planner.domain import Gpu, ModelFacts, Profile, RequestClass, Shape, StageCost, StageFacts
from planner.facts import Book, parse_catalog, parse_gpus, parse_profiles, parse_trace, workload_of
from planner.facts.names import canonical
from planner.facts.queueing import erlang_c, fit, most_load, wait_p95
from planner.facts.response import Visit, Way, quantile

HEAD = "cloud,region,instance_type,accelerator,count,price,spot_price,max_nodes\n"
PROFILES = "model,stage,gpu,width,height,frames,steps,seconds,peak_gib,source,weights_gib\n"
CARD = Gpu("H100", 80, 79, 3350, 989)


def fatal(defects):
    return [defect for defect in defects if defect.fatal]


def test_a_row_gives_two_offers():
    offers, defects = parse_catalog(HEAD + "aws,us,p5,H100 80GB,8,40,20,3\n", "c.csv")
    assert [(o.spot, o.usd_per_hour, o.accelerator, o.max_nodes, o.where) for o in offers] == [
        (False, 40, "H100", 3, "c.csv:2"),
        (True, 20, "H100", 3, "c.csv:2"),
    ]
    assert defects == []


@pytest.mark.parametrize(
    ("row", "word"),
    [
        ("aws,us,x,H100,1,nan,,", "finite"),
        ("aws,us,x,H100,1,-3,,", "above 0"),
        ("aws,us,x,H100,1,0,,", "above 0"),
        ("aws,us,x,H9000,1,3,,", "unknown GPU"),
        ("aws,us,x,H100,0,3,,", "above 0"),
        ("aws,us,x,H100,1,three,,", "not a number"),
        ("aws,us,x,H100,1,3,,2.5", "whole"),
        ("aws,us,x,H100,1,3,,,,,", "cells"),
    ],
)
def test_bad_catalog_rows_name_their_line(row, word):
    _, defects = parse_catalog(HEAD + "aws,us,ok,H100,1,3,,\n" + row + "\n", "c.csv")
    assert [d.where for d in fatal(defects)] == ["c.csv:3"]
    assert word in fatal(defects)[0].message


def test_missing_columns_and_empty_files():
    assert "price" in fatal(parse_catalog("cloud,region\n", "c")[1])[0].message
    assert fatal(parse_catalog("", "c")[1])
    assert fatal(parse_catalog(HEAD, "c")[1])
    assert "seconds" in fatal(parse_profiles("model,stage\n", "p")[1])[0].message


def test_doubtful_rows_are_flagged_or_left_out():
    rows = ("i1,H100,1,3,2.99", "i2,H100,1,3,", "i3,H100,1,9,", "i4,L4,0.5,1,", "i5,K80,1,1,", "i6,H100,12,30,")
    text = HEAD + "".join(f"a,r,{row},\n" for row in rows)
    offers, defects = parse_catalog(text, "c")
    assert [(o.instance_type, o.spot) for o in offers] == [("i1", False), ("i2", False), ("i3", False)]
    assert not fatal(defects)
    assert sorted({d.where for d in defects}) == ["c:2", "c:4", "c:5", "c:6", "c:7"]


def test_a_clouds_list_survives_its_defects():
    offers, defects = parse_catalog(HEAD + "a,r,i,H100,1,,0.00,\na,r,j,H100,1,2,,\n", "c", strict=False)
    assert len(offers) == 1
    assert not fatal(defects)
    assert len(defects) == 1


@pytest.mark.parametrize(
    ("written", "name"), [("NVIDIA H100 80GB HBM3", "H100"), ("RTX A6000", "A6000"), ("RTXPRO6000S", "RTX-PRO-6000-SE")]
)
def test_names(written, name):
    assert canonical(written) == name


def facts():
    shapes = [Shape(832, 480, 81, 50), Shape(1280, 720, 81, 50)]
    costs = tuple(StageCost(s, lin, att, 50) for s, lin, att in zip(shapes, (0.785, 1.81), (0.893, 4.714), strict=True))
    return ModelFacts("wan", (StageFacts("denoise", "transformer", 14, 27, costs),)), shapes


def test_rows_beyond_the_peak_are_refused_by_name():
    model, _ = facts()
    text = PROFILES + "wan,denoise,H100,832,480,81,50,20,40,published,28\n"
    _, defects = parse_profiles(text, "p.csv", [CARD], [model])
    assert "wan denoise on H100" in fatal(defects)[0].message
    assert "dense peak" in fatal(defects)[0].message
    assert fatal(defects)[0].where == "p.csv:2"


@pytest.mark.parametrize(
    ("row", "word"),
    [
        ("m,s,H100,8,8,1,1,-1,1,measured,", "above 0"),
        ("m,s,H100,8,8,1,1,nan,1,measured,", "finite"),
        ("m,s,H100,8,8,1,1,1,1,guessed,", "none of"),
        ("m,s,X1,8,8,1,1,1,1,measured,", "unknown GPU"),
        ("m,s,H100,8,8,1,1,1,2,measured,3", "more than peak"),
        ("m,s,H100,0,8,1,1,1,2,measured,", "at least 1"),
    ],
)
def test_bad_profiles(row, word):
    _, defects = parse_profiles(PROFILES + row + "\n", "p.csv")
    assert word in fatal(defects)[0].message
    assert fatal(defects)[0].where == "p.csv:2"


def test_other_shapes_are_carried_and_labelled():
    model, (small, large) = facts()
    book = Book([Profile("wan", "denoise", "H100", small, 240, 40, "measured", weights_gib=28)], [model], [CARD])
    exact, carried = book.predict("wan", "denoise", "H100", small), book.predict("wan", "denoise", "H100", large)
    assert exact is not None
    assert carried is not None
    assert exact.seconds == 240
    assert carried.seconds == pytest.approx(240 * 6.524 / 1.678, rel=1e-6)
    assert carried.error > exact.error
    assert carried.peak_gib > 40
    assert book.predict("wan", "denoise", "H100", large, 2) is None
    estimate = Book([], [model], [CARD]).predict("wan", "denoise", "H100", small)
    assert estimate is not None
    assert estimate.source == "estimated"
    assert 100 < estimate.seconds < 500
    assert Book([], [], [CARD]).predict("wan", "denoise", "H100", small) is None


def test_traces():
    text = "arrival_s,width,height,frames,steps\n" + "".join(f"{10 * n},64,64,1,4\n" for n in range(11))
    work, defects = parse_trace(text, "t", "m")
    assert work is not None
    assert defects == []
    (item,) = work.classes
    assert item == RequestClass("m", Shape(64, 64, 1, 4), item.rate_per_s)
    assert item.rate_per_s == pytest.approx(0.1)
    assert work.cv2 == pytest.approx(0)
    assert parse_trace("arrival_s,width,height,frames,steps\n1,64,64,1,nan\n", "t")[1][0].where == "t:2"
    assert parse_trace("arrival_s,width,height,frames,steps\n1,64,64,1,1\n", "t")[0] is None


def test_zero_rate_is_refused():
    assert fatal(workload_of([RequestClass("m", Shape(8, 8), 0.0)])[1])
    assert fatal(workload_of([RequestClass("m", Shape(8, 8), math.nan)])[1])
    merged, _ = workload_of([RequestClass("m", Shape(8, 8), 1.0), RequestClass("m", Shape(8, 8), 2.0)])
    assert merged.classes == (RequestClass("m", Shape(8, 8), 3.0),)


def test_queueing():
    assert erlang_c(1, 0.5) == pytest.approx(0.5)
    assert erlang_c(2, 1.0) == pytest.approx(1 / 3)
    for multiple in (0.1, 1.0, 5.0):
        a, h = fit(multiple, 1.0, 0.2, 0.98)
        for n in (1, 2, 5, 16, 64):
            load = a * n - h
            assert load <= most_load(n, multiple, 1.0, 0.2, 0.98) + 1e-9
            if load > 0:
                assert wait_p95(n, load, 1.0, 1.0, 0.2) <= multiple + 1e-6


def test_a_single_server_response_matches_theory():
    visit = Visit(((1.0, 3.0),), 0.5, 4.0)
    assert quantile([Way(1.0, (visit,))]) == pytest.approx(3 + 4 * math.log(0.5 / 0.05), rel=0.005)
    assert quantile([Way(1.0, (Visit(((1.0, 3.0),), 0.0, 0.0), Visit(((1.0, 2.0),), 0.0, 0.0)))]) == pytest.approx(
        5, rel=0.005
    )


def test_the_shipped_gpu_table_shape():
    text = "accelerator,mem_gb,mem_usable_gb,bw_gbs,fp16_tflops_dense,bf16\nT4,16,15,320,65,no\n"
    assert parse_gpus(text)[0] == Gpu("T4", 16, 15, 320, 65, bf16=False)
    with pytest.raises(ValueError, match="g:2"):
        parse_gpus(text.replace("320", "x"), "g")
