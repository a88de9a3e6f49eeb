#!/usr/bin/env bash
# Fails when an include breaks the arrows: server -> server/engine -> loader -> kernels; proto is
# included by server alone; CUDA headers by kernels alone. Time: under a second.
set -euo pipefail
cd "$(dirname "$0")/.."

status=0
forbid() {  # forbid FOLDERS PATTERN WHY
  local hits
  hits=$(grep -rnE --include='*.h' --include='*.cc' --include='*.cu' --include='*.cuh' "^[[:space:]]*#[[:space:]]*include[[:space:]]*[<\"]$2" $1 || true)
  if [[ -n "$hits" ]]; then
    echo "$hits"
    echo "check_layers: $1 $3"
    status=1
  fi
}

forbid kernels '(loader|server|proto|nibble/v1|google/rpc|grpc)' 'must not know the layers above it, gRPC or messages'
forbid loader '(server|proto|nibble/v1|google/rpc|google/protobuf|grpc)' 'must not know the server, gRPC or messages'
forbid 'loader server' '(cuda|cublas|nvml|device_launch|curand|cooperative_groups)' 'must not include CUDA headers'
forbid 'kernels loader' '(prometheus|spdlog|boost|CLI)' 'must not know metrics, logs, HTTP or the command line'
if [[ -d server/engine ]]; then
  forbid server/engine '(server/[a-z_]+\.h|nibble/v1|grpc|boost|prometheus)' 'must not know the server, gRPC, HTTP or metrics'
fi
forbid 'kernels loader server proto' 'tests/' 'must not include tests'
exit $status
