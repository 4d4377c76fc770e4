from __future__ import annotations

import pytest

pytestmark = pytest.mark.integration  # torch

torch = pytest.importorskip("torch")

from finetune import products  # noqa: E402  needs torch
from service.engine import products as engine_products  # noqa: E402


def given(dtype=torch.float32, *, transposed: bool = False):
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)

    weight = drawn(24, 40).t() if transposed else drawn(40, 24)
    return drawn(7, 24), weight, drawn(40), drawn(7, 40)


@pytest.fixture(params=["onednn", "public"])
def way(request, monkeypatch):
    if request.param == "public":
        monkeypatch.setattr(products, "_onednn", lambda: None)
    elif products._onednn() is None:
        pytest.skip("this torch has no such operator, or it gives something else")
    return request.param


@pytest.mark.parametrize("transposed", [False, True])
def test_products_are_those_in_twice_the_precision(way, transposed):
    x, weight, bias, to = given(transposed=transposed)
    with torch.no_grad():
        plain, biased = products.product(x, weight), products.product(x, weight, bias)
        added = products.added_product(to, x, weight)
        reused = products.added_product(to.clone(), x, weight, reuse=True)
    wide = x.double() @ weight.double().t()
    for found, wanted in ((plain, wide), (biased, wide + bias), (added, wide + to), (reused, wide + to)):
        assert found.dtype == torch.float32
        assert torch.allclose(found.double(), wanted, rtol=0, atol=1e-5)


def test_what_is_added_to_stays_as_it_was(way):
    x, weight, _, to = given()
    before = to.clone()
    with torch.no_grad():
        products.added_product(to, x, weight)
    assert torch.equal(to, before)


def test_no_rows_give_no_rows(way):
    with torch.no_grad():
        assert products.product(torch.empty(0, 24), given()[1]).shape == (0, 40)


def test_the_derivative_by_the_input_is_right_and_the_weight_has_none(way):
    x, weight, bias, _ = given(torch.float64)
    x.requires_grad_()
    assert torch.autograd.gradcheck(lambda one: products.frozen_product(one, weight, bias), x)
    narrow, weight = given()[0].requires_grad_(), given()[1].requires_grad_()
    products.frozen_product(narrow, weight).square().sum().backward()
    wanted = 2 * (narrow.detach() @ weight.detach().t()) @ weight.detach()
    assert torch.allclose(narrow.grad, wanted, rtol=1e-4, atol=1e-4)
    assert weight.grad is None


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_other_widths_go_the_public_way(monkeypatch, dtype):
    monkeypatch.setattr(products, "_onednn", lambda: pytest.fail("asked for a width that it is not for"))
    x, weight, bias, _ = given(dtype)
    with torch.no_grad():
        assert torch.equal(products.product(x, weight, bias), torch.nn.functional.linear(x, weight, bias))


def test_nothing_that_wants_a_derivative_goes_to_an_operator_without_one(monkeypatch):
    monkeypatch.setattr(products, "_onednn", lambda: pytest.fail("asked where a derivative is wanted"))
    x, weight, _, _ = given()
    products.product(x.requires_grad_(), weight).sum().backward()
    assert x.grad is not None


def _missing(*_):
    raise NotImplementedError("no such operator for this backend")


def _wrong(x, weight, *_):
    return x @ weight.t() + 1


@pytest.mark.parametrize("operator", [_missing, _wrong])
def test_an_operator_that_fails_or_gives_something_else_is_not_used(monkeypatch, operator):
    monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", operator)
    products._onednn.cache_clear()
    try:
        assert products._onednn() is None
    finally:
        products._onednn.cache_clear()


# ------------------------------------------------------------------------------------------------ the engine's


def test_the_engines_products_are_the_same_packed_or_not(monkeypatch):
    x, weight, bias, to = given()
    for onednn in (engine_products._onednn(), None):
        monkeypatch.setattr(engine_products, "_onednn", lambda operator=onednn: operator)
        laid = engine_products.packed(weight)
        assert laid.is_mkldnn == (onednn is not None)
        with torch.no_grad():
            wanted = products.product(x, weight, bias)
            assert torch.allclose(engine_products.product(x, laid, bias), wanted, rtol=0, atol=1e-5)
            added = engine_products.added_product(to.clone(), x, laid)
            assert torch.allclose(added, products.added_product(to, x, weight), rtol=0, atol=1e-5)
