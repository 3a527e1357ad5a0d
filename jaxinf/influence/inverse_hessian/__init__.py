"""Solvers of (curvature + damping) u = g, for K right sides at once."""

from jaxinf.influence.inverse_hessian.arnoldi import arnoldi
from jaxinf.influence.inverse_hessian.cg import cg
from jaxinf.influence.inverse_hessian.ekfac import ekfac
from jaxinf.influence.inverse_hessian.exact import exact
from jaxinf.influence.inverse_hessian.kfac import kfac
from jaxinf.influence.inverse_hessian.lissa import lissa
from jaxinf.influence.inverse_hessian.system import Solution, Solver, System
from jaxinf.influence.inverse_hessian.woodbury import woodbury

__all__ = [
    "Solution",
    "Solver",
    "System",
    "arnoldi",
    "cg",
    "ekfac",
    "exact",
    "kfac",
    "lissa",
    "woodbury",
]
