"""`ot.gromov`: (fused) Gromov-Wasserstein: exact, entropic, partial, relaxed; barycenters."""

from hotnas_torch.integrations.pot.arrays import absent
from hotnas_torch.integrations.pot.gromov.barycenters import fgw_barycenters, gromov_barycenters
from hotnas_torch.integrations.pot.gromov.entropic import (
    entropic_fused_gromov_wasserstein,
    entropic_fused_gromov_wasserstein2,
    entropic_gromov_wasserstein,
    entropic_gromov_wasserstein2,
)
from hotnas_torch.integrations.pot.gromov.exact import (
    fused_gromov_wasserstein,
    fused_gromov_wasserstein2,
    gromov_wasserstein,
    gromov_wasserstein2,
)
from hotnas_torch.integrations.pot.gromov.partial import (
    partial_fused_gromov_wasserstein,
    partial_fused_gromov_wasserstein2,
    partial_gromov_wasserstein,
    partial_gromov_wasserstein2,
)
from hotnas_torch.integrations.pot.gromov.semirelaxed import (
    semirelaxed_fused_gromov_wasserstein,
    semirelaxed_fused_gromov_wasserstein2,
    semirelaxed_gromov_wasserstein,
    semirelaxed_gromov_wasserstein2,
)
from hotnas_torch.integrations.pot.gromov.unbalanced import (
    fused_unbalanced_gromov_wasserstein,
    fused_unbalanced_gromov_wasserstein2,
)

__all__ = [
    "entropic_fused_gromov_wasserstein",
    "entropic_fused_gromov_wasserstein2",
    "entropic_gromov_wasserstein",
    "entropic_gromov_wasserstein2",
    "fgw_barycenters",
    "fused_gromov_wasserstein",
    "fused_gromov_wasserstein2",
    "fused_unbalanced_gromov_wasserstein",
    "fused_unbalanced_gromov_wasserstein2",
    "gromov_barycenters",
    "gromov_wasserstein",
    "gromov_wasserstein2",
    "partial_fused_gromov_wasserstein",
    "partial_fused_gromov_wasserstein2",
    "partial_gromov_wasserstein",
    "partial_gromov_wasserstein2",
    "semirelaxed_fused_gromov_wasserstein",
    "semirelaxed_fused_gromov_wasserstein2",
    "semirelaxed_gromov_wasserstein",
    "semirelaxed_gromov_wasserstein2",
]

__getattr__ = absent(__name__)
