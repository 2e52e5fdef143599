"""What is deployed is valid, consistent in itself, and speaks the command line that there is."""

from __future__ import annotations

import configparser
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import click
import kubernetes_validate
import pytest
import yaml

from actorlib.cli.commands import group

ROOT = Path(__file__).resolve().parents[2] / "deploy"
MANIFESTS = sorted(ROOT.glob("kubernetes/*.yaml"))
UNITS = sorted(ROOT.glob("systemd/*.service"))
SCRIPT = ROOT / "slurm" / "actorlib.sbatch"
API_VERSIONS = ("1.28", "1.32")  # the oldest that is still in use, and a newer one


def documents():
    return [document for path in MANIFESTS for document in yaml.safe_load_all(path.read_text())]


def of_kind(kind):
    return [document for document in documents() if document["kind"] == kind]


def check_command(words):
    """The words after ``actorlib`` are a command with options that it has."""
    command = group
    while words and isinstance(command, click.Group):
        assert words[0] in command.commands, f"there is no command {words[0]!r}"
        command, words = command.commands[words[0]], words[1:]
    options = {name for parameter in command.params for name in parameter.opts}
    for word in words:
        if word.startswith("--"):
            assert word in options, f"{command.name} has no option {word}"
    return command, words


def commands_in(text):
    """Every ``actorlib ...`` of a shell text, as words."""
    joined = text.replace("\\\n", " ")
    found = [
        re.split(r"[;|&)]", match)[0]
        for match in re.findall(r"(?<![\w/.-])actorlib ((?:start|stop|drain|keys|run|status)\b[^\n]*)", joined)
    ]
    return [shlex.split(words.strip()) for words in found]


# -- Kubernetes --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("version", API_VERSIONS)
@pytest.mark.parametrize("path", MANIFESTS, ids=lambda path: path.name)
def test_manifests_are_valid_by_the_apis_schema(path, version):
    for document in yaml.safe_load_all(path.read_text()):
        kubernetes_validate.validate(document, version, strict=True)


def test_the_schema_refuses_what_is_wrong():
    (deployment,) = of_kind("Deployment")
    deployment["spec"]["template"]["spec"]["containers"][0]["lifecycle"]["preStopp"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(deployment, API_VERSIONS[0], strict=True)


def test_there_is_all_that_a_cluster_needs():
    kinds = [document["kind"] for document in documents()]
    assert sorted(kinds) == ["Deployment", "Namespace", "NetworkPolicy", "Secret", "Service", "StatefulSet"]
    assert {document["metadata"]["namespace"] for document in documents() if document["kind"] != "Namespace"} == {
        of_kind("Namespace")[0]["metadata"]["name"]
    }


@pytest.mark.parametrize("kind", ["StatefulSet", "Deployment"])
def test_selectors_volumes_and_names_fit_together(kind):
    (workload,) = of_kind(kind)
    spec = workload["spec"]
    labels = spec["template"]["metadata"]["labels"]
    assert spec["selector"]["matchLabels"].items() <= labels.items()
    (policy,) = of_kind("NetworkPolicy")
    assert policy["spec"]["podSelector"]["matchLabels"].items() <= labels.items()
    pod = spec["template"]["spec"]
    (container,) = pod["containers"]
    volumes = {volume["name"]: volume for volume in pod["volumes"]}
    claimed = {claim["metadata"]["name"] for claim in spec.get("volumeClaimTemplates", ())}
    assert {mount["name"] for mount in container["volumeMounts"]} == volumes.keys() | claimed
    drain = container["lifecycle"]["preStop"]["exec"]["command"]
    assert drain[:3] == ["actorlib", "drain", "here"]
    assert float(drain[drain.index("--deadline") + 1]) + 10 <= pod["terminationGracePeriodSeconds"]
    secrets = {volume["secret"]["secretName"] for volume in volumes.values() if "secret" in volume}
    assert secrets <= {secret["metadata"]["name"] for secret in of_kind("Secret")}
    memory = volumes["shared-memory"]["emptyDir"]
    assert memory["medium"] == "Memory" and memory["sizeLimit"]


def test_the_head_is_found_by_its_name_and_keeps_its_directory():
    (head,), (service,), (workers,) = of_kind("StatefulSet"), of_kind("Service"), of_kind("Deployment")
    assert head["spec"]["serviceName"] == service["metadata"]["name"] and head["spec"]["replicas"] == 1
    assert service["spec"]["selector"].items() <= head["spec"]["template"]["metadata"]["labels"].items()
    (start,) = commands_in(head["spec"]["template"]["spec"]["containers"][0]["args"][0])
    mounts = head["spec"]["template"]["spec"]["containers"][0]["volumeMounts"]
    (state,) = [mount["mountPath"] for mount in mounts if mount["name"] == "state"]
    assert start[start.index("--dir") + 1].startswith(state + "/")
    (join,) = commands_in(workers["spec"]["template"]["spec"]["containers"][0]["args"][0])
    name = f"{service['metadata']['name']}.{service['metadata']['namespace']}.svc"
    assert join[join.index("--address") + 1] == f"{name}:{service['spec']['ports'][0]['port']}"


@pytest.mark.parametrize("kind", ["StatefulSet", "Deployment"])
def test_the_commands_in_pods_are_ours(kind):
    (container,) = of_kind(kind)[0]["spec"]["template"]["spec"]["containers"]
    (words,) = commands_in(container["args"][0])
    check_command(words)
    for probe in (container["readinessProbe"]["exec"]["command"], container["lifecycle"]["preStop"]["exec"]["command"]):
        check_command(probe[1:])
    done = subprocess.run(["sh", "-n", "-c", container["args"][0]], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# -- systemd -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_units_start_a_node_in_the_foreground_and_end_it_in_good_order(path):
    unit = configparser.ConfigParser(strict=True, interpolation=None)
    unit.optionxform = str
    unit.read(path)
    assert unit.sections() == ["Unit", "Service", "Install"]
    service = unit["Service"]
    program, *words = shlex.split(service["ExecStart"])
    assert program.endswith("/actorlib")
    command, _ = check_command(words)
    assert command.name == "start" and "--block" in words
    assert service["KillMode"] == "mixed"
    assert float(words[words.index("--drain-deadline") + 1]) + 15 <= int(service["TimeoutStopSec"])
    assert service["User"] != "root" and service["Restart"] in ("always", "on-failure")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not on this machine")
@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_systemd_knows_every_line_of_the_units(path, tmp_path):
    text = re.sub(r"/opt/actorlib/bin/actorlib", "/bin/true", path.read_text())  # it must be there to be verified
    copy = tmp_path / path.name
    copy.write_text(re.sub(r"^(User|Group)=.*$", r"\1=root", text, flags=re.MULTILINE))
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", str(copy)], capture_output=True, text=True)
    complaints = [line for line in done.stderr.splitlines() if path.name in line]
    assert not complaints, complaints


# -- Slurm -------------------------------------------------------------------------------------------------------------
def test_the_batch_script_is_a_script_and_its_commands_are_ours():
    done = subprocess.run(["bash", "-n", str(SCRIPT)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    names = [check_command(words)[0].name for words in commands_in(SCRIPT.read_text())]
    assert sorted(names) == ["new", "run", "start", "start"]


def test_the_batch_script_starts_a_cluster_runs_the_script_and_leaves_nothing(tmp_path):
    """With stand-ins for Slurm's programs and for ours, which note how they were called."""
    calls, bin_directory = tmp_path / "calls", tmp_path / "bin"
    bin_directory.mkdir()
    stand_ins = {
        "scontrol": "printf 'm1\\nm2\\nm3\\n'",
        "srun": 'while [[ $1 == --* ]]; do shift; done; exec "$@"',
        "hostname": "echo 10.0.0.1",
        "actorlib": f"""echo "$@" >> {calls}
case "$1 $2" in
  "start --head") mkdir -p "$5/keys"; sleep 600 & wait $! ;;
  "start --block") sleep 600 & wait $! ;;
  "keys new") echo "/keys/$3.key" ;;
  "run --address") until [[ $(grep -c "^start --block" {calls}) == 2 ]]; do sleep 0.05; done ;;
esac""",
    }
    for name, body in stand_ins.items():
        program = bin_directory / name
        program.write_text(f"#!/usr/bin/env bash\ntrap 'kill $(jobs -p) 2>/dev/null; exit 0' TERM\n{body}\n")
        program.chmod(0o700)
    environment = {
        "PATH": f"{bin_directory}:/usr/bin:/bin",
        "HOME": str(tmp_path),
        "SLURM_JOB_ID": "7",
        "SLURM_JOB_NODELIST": "m[1-3]",
    }
    done = subprocess.run(
        ["bash", str(SCRIPT), "train.py", "--epochs", "2"], env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
    lines = calls.read_text().splitlines()
    assert sum(line.startswith("start --block --address 10.0.0.1:6390 --key /keys/m") for line in lines) == 2
    assert "run --address 10.0.0.1:6390 train.py --epochs 2" in lines
    assert not (tmp_path / ".actorlib-jobs" / "7").exists()
