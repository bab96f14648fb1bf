"""XLA's flags for tests: programs that are compiled quickly, and run a few times only."""

QUICK = (
    "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true "
    "--xla_cpu_use_fusion_emitters=false --xla_cpu_parallel_codegen_split_count=1"
)
"""They take three quarters of the compiler's time away. What is computed stays the same, up to rounding."""

EIGHT = "--xla_force_host_platform_device_count=8"
"""Which the TPU's compiler knows too. It ends the process, without a word, where XLA_FLAGS has one that it does not."""

EIGHT_DEVICES = f"{EIGHT} {QUICK}"
