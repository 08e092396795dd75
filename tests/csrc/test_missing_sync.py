"""Without any sync() of the core, ThreadSanitizer reports a race, or it is said why there is none.

Lanes that are threads pass by one sync() at a time. Each is a line of csrc/core or csrc/items, and
the program is compiled once.
"""

import os
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

CSRC = Path(__file__).parents[2] / "csrc"
TEXTS = {
    path.name: path for part in ("core", "items") for path in sorted((CSRC / part).glob("*.h"))
}

pytestmark = pytest.mark.ext


def sites() -> list[str]:
    """`file:line` of every sync() of the core."""
    return [
        f"{name}:{number}"
        for name, path in TEXTS.items()
        for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1)
        if re.match(r"\s*g_?\.sync\(\);", line)
    ]


SITES = sites()
# The last of each file: so a line in one does not move what is tried of the others.
TRIED = list({site.split(":")[0]: site for site in SITES}.values())

# What other syncs make needless, by its file and the lines before and after, and how. Each alone:
# of two in a row one must stay, and without one the kernels' registers are to be counted anew.
UNSEEN = {
    (
        "kl_transport.h",
        "HN_HD Value value() const {",
        "const auto columns = G::template splat_int<double>(s_.m);",
    ): "solve() came before, and returns right after a sync()",
    (
        "kl_transport.h",
        "for (;;) {",
        "if (g_.leader()) list();",
    ): "since the last sync() the leader alone worked, but for duals of the padding",
    (
        "kl_transport.h",
        "}",
        "if (g_.leader()) plant();",
    ): "plant() reads costs, which are older, and its own `order`; settle() syncs for the masses",
    (
        "kl_transport_item.h",
        "int pivots = 0;",
        "if (status == Status::converged) {",
    ): "begin() reads what its lane wrote, and syncs; where status is none, nobody reads it",
    (
        "semirelaxed.h",
        "G::splat(linear_) * g_.load(w_.cost + e) + G::splat(pair_) * g_.load(w_.grad + e));",
        "}",
    ): "a lane meets its own columns of the gradient up to the sync() of what follows",
    (
        "semirelaxed.h",
        "const Slopes at = slopes();",
        "now.objective = T(0.5) * (linear_ * at.linear + at.on_plan);",
    ): "whatever writes plan, best plan or row minima next syncs before it does",
    (
        "semirelaxed.h",
        "copy(w_.best_plan, w_.plan);",
        "renew();",
    ): "renew() reads the lane's own columns of the first row, and syncs",
    (
        "semirelaxed.h",
        "w_.plan[w_.vertex.place[t]] += share * w_.vertex.mass[t];",
        "}",
    ): "list_cheapest() follows, and syncs before it sets `place` and `mass`; it reads no plan",
    (
        "semirelaxed_item.h",
        "best = solver.best(*w.fgw.units);",
        "if (!failed(best.status) && !finite_duals(g, s, w.fgw)) best.status = Status::nonfinite;",
    ): "between the syncs around it the work space is read and not written",
    (
        "simplex.h",
        "has_basis_ = true;",
        "if constexpr (HasSmallTree<G, T>) {",
    ): "solve() follows, and begins with a sync()",
    (
        "sinkhorn.h",
        "w.b[j] = j < s.m ? ScalarLanes::exp(w.log_b[j]) : T(0);",
        "SinkhornResult<T> result{0, 0, false, true};",
    ): "set_floor() follows, reads the lane's own columns of costs and duals, and syncs",
    (
        "table_items.h",
        "const MassUnit<T> mass = load_masses(g, x, y, a.mass, b.mass, w.a, w.b);",
        "add_feature_gaps(g, s, x, p.x.features + nx * p.x.cells * p.num_features, w.across,",
    ): "a lane meets its own columns up to the first sync() of the transport",
    (
        "unbalanced_item.h",
        "rescale(g, w.cost, static_cast<std::size_t>(s.n) * s.ld, unit.template inward<T>());",
        "const double of_x = ldexp(p.marginal_x, -unit.exponent),",
    ): "prepare() follows, meets what its lane wrote, and syncs",
}


def case(site: str) -> object:
    """Return a site as a parameter, marked where it is known why nobody misses it."""
    name, number = site.split(":")
    lines = TEXTS[name].read_text(encoding="utf-8").splitlines()
    around = name, lines[int(number) - 2].strip(), lines[int(number)].strip()
    if around not in UNSEEN:
        return site
    return pytest.param(site, marks=pytest.mark.xfail(strict=True, reason=UNSEEN[around]))


def test_every_exception_is_a_sync() -> None:
    assert sum(isinstance(case(site), tuple) for site in SITES) == len(UNSEEN)


KERNELS = {
    "entropic_fgw.h": "entropic_fgw",
    "entropic_items.h": "sinkhorn,entropic_transport,entropic_fgw",
    "fgw.h": "fgw,fgw_merging,fgw_partial",
    "fgw_backward.h": "fgw_backward",
    "forest.h": "transport,forbidding,fgw,fgw_partial",
    "gather.h": "transport,fgw,fgw_backward",
    "item.h": "transport,fgw",
    "kl_transport.h": "kl_transport",
    "lower_bound.h": "fgw_lower_bound",
    "partial_assignment.h": "partial_assignment,fgw_units",
    "semirelaxed.h": "semirelaxed_fgw",
    "simplex.h": "transport,forbidding,fgw,fgw_partial",
    "sinkhorn.h": "sinkhorn",
    "transport.h": "transport,forbidding,fgw,partial_assignment",
    "transport_item.h": "transport,forbidding",
    "unbalanced.h": "unbalanced_sinkhorn",
}


def kernels(site: str) -> str:
    """Name the kernels that come by a site."""
    name, number = site.split(":")
    if name in KERNELS:
        return KERNELS[name]
    path = TEXTS[name]
    assert path.parent.name == "items", f"{path} has a sync(): which kernels come by it?"
    before = path.read_text(encoding="utf-8").splitlines()[: int(number)]
    item = re.findall(r"struct (\w+)Item\b", "\n".join(before))[-1]
    found = re.sub(r"(?<!^)(?=[A-Z])", "_", item).lower()
    return "fgw_lower_bound" if found == "lower_bound" else found


@pytest.fixture(scope="module")
def said(
    built: Callable[[str], Path], fixed_addresses: list[str]
) -> Callable[..., subprocess.CompletedProcess[str]]:
    """What the lanes say under ThreadSanitizer: two threads, each item twice without a rest."""
    program = built("lanes_main_thread")

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*fixed_addresses, program, "lanes=2", "nodes=9", "repeats=2", *arguments],
            env={**os.environ, "TSAN_OPTIONS": "halt_on_error=1"},
            capture_output=True,
            text=True,
            timeout=600,
            check=False,
        )

    return run


def test_every_sync_is_a_line_of_its_own() -> None:
    texts = [path.read_text(encoding="utf-8") for path in TEXTS.values()]
    assert len(SITES) == sum(len(re.findall(r"^[^/\n]*\.sync\(\)", text, re.M)) for text in texts)


def check(site: str, said: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    done = said(f"skip={site}", f"kernels={kernels(site)}")
    found = "WARNING: ThreadSanitizer: data race" in done.stderr or done.returncode != 0
    assert found, f"nobody misses the sync() at {site}"


@pytest.mark.parametrize("site", [case(site) for site in TRIED])
def test_a_missing_sync_is_found(
    site: str, said: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    check(site, said)


@pytest.mark.slow
@pytest.mark.parametrize("site", [case(site) for site in SITES if site not in TRIED])
def test_any_missing_sync_is_found(
    site: str, said: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    check(site, said)


def test_nothing_is_found_where_nothing_is_missing(
    said: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    assert said("every=12").stdout.splitlines()[-1].endswith(" comparisons, 0 differences")


@pytest.mark.slow
@pytest.mark.parametrize("chosen", sorted({kernels(site) for site in SITES}))
def test_nothing_is_found_in_what_misses_a_sync_elsewhere(
    chosen: str, said: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    done = said(f"kernels={chosen}")
    assert done.returncode == 0, done.stdout + done.stderr
