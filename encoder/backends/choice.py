"""Which runtime, precision and device do the forward: from settings and hardware, a pure table.

`encoder.backends.select` loads what was chosen here.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from encoder.errors import ModelLoadError
from encoder.settings import BackendName, DtypeName, EncoderSettings

__all__ = ["Choice", "Hardware", "choose", "detect_hardware"]

_CPU_INFO = Path("/proc/cpuinfo")
_BFLOAT16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}


@dataclass(frozen=True)
class Hardware:
    """What this machine can do.

    Attributes:
        cuda: A CUDA device is there.
        cuda_bfloat16: It computes bfloat16 natively.
        cpu_bfloat16: The CPU multiplies bfloat16 matrices natively.
        openvino_bfloat16: OpenVINO computes bfloat16 on this CPU. Asked for it elsewhere, it
            computes float32 and does not say so.
        openvino: The package is installed.
    """

    cuda: bool
    cuda_bfloat16: bool
    cpu_bfloat16: bool
    openvino_bfloat16: bool
    openvino: bool

    def fastest_dtype(self, backend: str, device: str) -> str:
        """Return the fastest precision that a backend really computes on a device, without int8."""
        if device != "cpu":
            return "bfloat16" if self.cuda_bfloat16 else "float16"
        has_bfloat16 = self.cpu_bfloat16 and (backend != "openvino" or self.openvino_bfloat16)
        return "bfloat16" if has_bfloat16 else "float32"


@dataclass(frozen=True)
class Choice:
    """What does the forward.

    Attributes:
        backend: "torch" or "openvino".
        dtype: "float32", "bfloat16", "float16" or "int8".
        device: "cpu", "cuda" or "cuda:N".
        is_dtype_ours: Whether the precision was left to us, so that it must pass the probe.
    """

    backend: str
    dtype: str
    device: str
    is_dtype_ours: bool


def detect_hardware() -> Hardware:
    """Look at this machine."""
    import torch

    cuda = torch.cuda.is_available()
    openvino = find_spec("openvino") is not None
    return Hardware(
        cuda=cuda,
        cuda_bfloat16=cuda and torch.cuda.is_bf16_supported(including_emulation=False),
        cpu_bfloat16=_cpu_has_bfloat16(),
        openvino_bfloat16=openvino and _openvino_has_bfloat16(),
        openvino=openvino,
    )


def choose(settings: EncoderSettings, hardware: Hardware) -> Choice:
    """Return what the settings ask for, with `auto` filled in.

    Raises:
        ModelLoadError: What is asked for cannot run here.
    """
    if settings.dtype is DtypeName.INT8:
        return _choose_int8(settings, hardware)
    device = _choose_device(settings, hardware)
    backend = settings.backend.value
    wants_bfloat16 = settings.dtype is DtypeName.BFLOAT16
    if settings.backend is BackendName.AUTO:
        can_openvino = hardware.openvino_bfloat16 if wants_bfloat16 else hardware.openvino
        backend = "openvino" if device == "cpu" and can_openvino else "torch"
    if backend == "openvino" and not hardware.openvino:
        raise _not_installed("backend openvino", "use backend torch")
    if settings.dtype is DtypeName.AUTO:
        fastest = hardware.fastest_dtype(backend, device)
        return Choice(backend, fastest, device, is_dtype_ours=True)
    if wants_bfloat16 and backend == "openvino" and not hardware.openvino_bfloat16:
        raise ModelLoadError(
            "dtype bfloat16 with backend openvino needs a CPU that computes bfloat16, found none; "
            "use dtype float32 or auto, or backend torch, which is slow here"
        )
    if settings.dtype is DtypeName.FLOAT16 and device == "cpu":
        raise ModelLoadError(
            "dtype float16 needs a CUDA device, found device cpu; use bfloat16, float32 or auto"
        )
    return Choice(backend, settings.dtype.value, device, is_dtype_ours=False)


def _choose_int8(settings: EncoderSettings, hardware: Hardware) -> Choice:
    """Return the only way that int8 runs: OpenVINO on a CPU, also where there is a GPU."""
    instead = "use dtype bfloat16, float32 or auto"
    if settings.backend is BackendName.TORCH:
        raise ModelLoadError(
            f"dtype int8 needs backend openvino, found backend torch; use openvino, or {instead}"
        )
    if settings.device.partition(":")[0] == "cuda":
        raise ModelLoadError(
            f"dtype int8 runs on the CPU, found device {settings.device}; use device cpu and "
            f"reserve no GPU, or {instead}"
        )
    if not hardware.openvino:
        raise _not_installed("dtype int8", instead)
    on_cpu = settings.model_copy(update={"backend": BackendName.OPENVINO})
    return Choice("openvino", "int8", _choose_device(on_cpu, hardware), is_dtype_ours=False)


def _not_installed(what: str, instead: str) -> ModelLoadError:
    return ModelLoadError(
        f"{what} needs the package openvino, which is not installed; pip install 'twofold[cpu]', "
        f"or {instead}"
    )


def _choose_device(settings: EncoderSettings, hardware: Hardware) -> str:
    device = settings.device
    if device == "auto":
        wants_gpu = settings.backend is not BackendName.OPENVINO and hardware.cuda
        return "cuda" if wants_gpu else "cpu"
    kind = device.partition(":")[0]
    if kind == "cuda" and not hardware.cuda:
        raise ModelLoadError(
            f"device {device} needs a CUDA device, a driver that PyTorch can use and a CUDA build "
            "of it, found not all three (nvidia-smi and torch.version.cuda tell which); use device "
            "cpu, or reserve no GPU"
        )
    if kind == "cuda" and settings.backend is BackendName.OPENVINO:
        raise ModelLoadError(
            f"backend openvino runs on the CPU, found device {device}; use backend torch, or "
            "device cpu and reserve no GPU"
        )
    return device if kind == "cuda" else "cpu"


def _cpu_has_bfloat16() -> bool:
    """Ask PyTorch; versions before 2.11 have no public answer, the kernel's flags are the same."""
    import torch

    capabilities = getattr(torch.cpu, "get_capabilities", None)
    if capabilities is not None:
        found = capabilities()
        return any(bool(found.get(flag)) for flag in _BFLOAT16_FLAGS)
    if not _CPU_INFO.exists():
        return False
    return not _BFLOAT16_FLAGS.isdisjoint(_CPU_INFO.read_text().split())


def _openvino_has_bfloat16() -> bool:
    """Ask OpenVINO. One that cannot be asked is reported where it is to be used."""
    from encoder.backends.openvino_conversion import import_openvino

    try:
        openvino = import_openvino("backend openvino", "use backend torch")
        return "BF16" in openvino.Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    except (ModelLoadError, RuntimeError):
        return False
