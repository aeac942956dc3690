#!/usr/bin/env bash
# The manifests on a real cluster: install, embed, serve, query, upgrade under load.
#
#   k8s/e2e.sh          # makes a kind cluster `twofold-e2e` and deletes it at the end
#
# NOT RUN SO FAR: it needs Docker, which the machines that this project was built on do not have; it
# passes shellcheck. Needs docker, kind, kubectl, helm, network (images, the chart, the model), 4 CPUs
# and 12 GiB. KUBERAY_CHART is the operator's chart, after `helm repo add kuberay` as its
# documentation says, or a folder.
set -euo pipefail
cd "$(dirname "$0")/.."

cluster=twofold-e2e
image=twofold:0.1.0-cpu
chart=${KUBERAY_CHART:-kuberay/kuberay-operator}

step() { printf '\n=== %s (%d s)\n' "$*" "$SECONDS"; }
k() { kubectl --context "kind-$cluster" --namespace twofold "$@"; }
finish() {
    local status=$?
    if ((status != 0)); then
        k get rayjobs,rayservices,rayclusters,pods --output wide || true
        k get events --sort-by .lastTimestamp | tail -40 || true
    fi
    kind delete cluster --name "$cluster"
    exit "$status"
}

# Runs Python in a pod that may do what the job's pods may; $1 is the pod's name, stdin the program.
python_pod() {
    k delete pod "$1" --ignore-not-found
    k create configmap "$1" --from-file=main.py=/dev/stdin --dry-run=client --output yaml | k apply -f -
    k apply -f - <<EOF
apiVersion: v1
kind: Pod
metadata: {name: $1}
spec:
  restartPolicy: Never
  automountServiceAccountToken: false
  securityContext:
    runAsNonRoot: true
    runAsUser: 1000
    seccompProfile: {type: RuntimeDefault}
  volumes: [{name: program, configMap: {name: $1}}, {name: tmp, emptyDir: {}}]
  containers:
    - name: python
      image: $image
      command: [python, /program/main.py]
      env: [{name: HOME, value: /tmp}]
      envFrom: [{secretRef: {name: twofold-s3}}]
      securityContext:
        allowPrivilegeEscalation: false
        readOnlyRootFilesystem: true
        capabilities: {drop: [ALL]}
      volumeMounts: [{name: program, mountPath: /program}, {name: tmp, mountPath: /tmp}]
EOF
}
succeeded() { k wait --for=jsonpath='{.status.phase}'=Succeeded --timeout="$2" "pod/$1"; }

for command in docker kind kubectl helm; do
    command -v "$command" >/dev/null || { echo "e2e.sh needs $command" >&2; exit 1; }
done

step "image and cluster"
docker build --file k8s/Dockerfile --target cpu --tag "$image" .
trap finish EXIT
kind create cluster --name "$cluster"
kind load docker-image "$image" --name "$cluster"

step "KubeRay"
helm upgrade --install kuberay-operator "$chart" --version 1.7.0 --kube-context "kind-$cluster" \
    --namespace kuberay-system --create-namespace --wait

step "store and documents"
kubectl --context "kind-$cluster" apply --kustomize k8s/overlays/local/shared
k create secret generic twofold-s3 --from-literal=AWS_ACCESS_KEY_ID="$(openssl rand -hex 8)" \
    --from-literal=AWS_SECRET_ACCESS_KEY="$(openssl rand -hex 16)" \
    --from-literal=AWS_REGION=us-east-1 --from-literal=AWS_ENDPOINT_URL=http://twofold-store:8333
k rollout status deployment/twofold-store --timeout=5m
python_pod upload <<'EOF'
import fsspec, json
with fsspec.open("s3://lake/docs/a.jsonl", "w") as file:
    for n in range(1000):
        file.write(json.dumps({"id": str(n), "text": f"Document {n} is about number {n}."}) + "\n")
EOF
succeeded upload 5m

step "embed"
k apply --kustomize k8s/overlays/local/embed-job
k wait --for=jsonpath='{.status.jobDeploymentStatus}'=Complete --timeout=20m rayjob/twofold-embed
k logs job/twofold-embed | tail -20

step "serve"
k apply --kustomize k8s/overlays/local/query-service
k wait --for=condition=Ready --timeout=20m rayservice/twofold-query
python_pod query <<'EOF'
import json, urllib.request
body = json.dumps({"model": "noinstruct", "input": "which one is about seven?"}).encode()
request = urllib.request.Request("http://twofold-query-serve-svc:8000/v1/embeddings", body,
                                 {"Content-Type": "application/json"})
with urllib.request.urlopen(request, timeout=30) as response:
    print(response.headers["x-embedding-space"], len(json.load(response)["data"][0]["embedding"]))
EOF
succeeded query 2m
k logs query

step "upgrade under load: another cluster takes over, no request fails"
active() { k get rayservice twofold-query --output jsonpath='{.status.activeServiceStatus.rayClusterName}'; }
before=$(active)
python_pod load <<'EOF'
import json, os, time, urllib.request
body = json.dumps({"model": "noinstruct", "input": "hello"}).encode()
failed = answered = 0
end = time.monotonic() + 600
while time.monotonic() < end and not os.path.exists("/tmp/stop"):
    request = urllib.request.Request("http://twofold-query-serve-svc:8000/v1/embeddings", body,
                                     {"Content-Type": "application/json"})
    try:
        urllib.request.urlopen(request, timeout=30).read()
        answered += 1
    except OSError as error:
        failed += 1
        print(error, flush=True)
    time.sleep(0.02)
print(f"{answered} answered, {failed} failed")
raise SystemExit(bool(failed) or not answered)
EOF
k wait --for=condition=Ready --timeout=2m pod/load
k patch rayservice twofold-query --type=json --patch '[{"op": "add", "value": {"e2e": "again"},
    "path": "/spec/rayClusterConfig/workerGroupSpecs/0/template/metadata/annotations"}]'
for ((second = 0; second < 500; second += 5)); do
    [[ $(active) == "$before" ]] || break
    sleep 5
done
[[ $(active) != "$before" ]]
sleep 30 # the old cluster is still there: late connections to it count, too
k exec load -- touch /tmp/stop
succeeded load 1m
k logs load | tail -1

step "all passed"
