"""The files for GitLab, Kubernetes and Argo Rollouts: read strictly, and held against the gate that they run."""

import datetime as dt
import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from gates import config
from gates.inputs import strict_yaml
from gates.operator.serve import TOKEN, Desk
from gates.verdict import Decision
from tests.places.command_lines import printed, refused
from tests.sources import ROOT

HOST = "http://replaygate:8600"
FOLDER = ROOT / "docs" / "ci"
FILES = sorted(path for path in FOLDER.iterdir() if path.suffix in {".yaml", ".yml"})
KNOWN = {*config.VARIABLES, "GATE_TARGET", *config.KEYS, TOKEN}


def documents(path: Path) -> list[Any]:
    parts = path.read_text(encoding="utf-8").split("\n---\n")
    return [strict_yaml.read(part, path.name).as_value() for part in parts]


def objects() -> list[tuple[str, Any]]:
    """What a cluster is given, by kind and name."""
    found = [d for path in FILES if path.suffix == ".yaml" for d in documents(path)]
    return [(f"{d['kind']} {d['metadata'].get('name') or d['metadata']['generateName']}", d) for d in found]


OBJECTS = objects()


def below(node: Any, name: str) -> Iterator[Any]:
    """Every member of that name, at any depth."""
    inner = node.values() if isinstance(node, dict) else node if isinstance(node, list | tuple) else ()
    if isinstance(node, dict) and name in node:
        yield node[name]
    for one in inner:
        yield from below(one, name)


def pods() -> list[Any]:
    return [t["spec"] for _, d in OBJECTS for t in below(d, "template") if "containers" in t.get("spec", {})]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_command_of_the_gate_is_one_that_it_has(path: Path) -> None:
    """A renamed option would fail on the day of the deploy."""
    text = re.sub(r"\$\[\[.*?\]\]", "", path.read_text(encoding="utf-8"))
    assert {" ".join(words): said for words in printed(text) if (said := refused(words))} == {}


def test_the_containers_run_commands_that_the_gate_has() -> None:
    """Arguments of the image's own entry point are no command line in the text."""
    assert {" ".join(c["args"]): refused(c["args"]) for pod in pods() for c in pod["containers"]} == {
        "run --state /state --output /work/gate-out": "",
        "run --state /state --output /tmp/gate-out --exit-zero-on hold": "",
        "serve --host 0.0.0.0 --port 8600 --state /state": "",
        "watch --once --every 5m --state /state": "",
    }


def test_variables_are_those_that_the_gate_reads() -> None:
    """A misspelt variable leaves checks unknown, and every deploy on hold."""
    data = [d for _, d in OBJECTS if d["kind"] in {"Secret", "ConfigMap"}]
    given = {name for d in data for name in (d.get("data") or d.get("stringData"))}
    given |= {one["name"] for _, d in OBJECTS for env in below(d, "env") for one in env}
    (job,) = [v for d in documents(FOLDER / "gitlab.yml") for v in below(d, "variables")]
    assert (given | set(job)) - KNOWN == set()
    secrets = {name for name, about in config.VARIABLES.items() if about.secret and name != "BASE_URL"}
    ours, served = [set(d["stringData"]) for d in data if d["kind"] == "Secret"]
    assert ours <= secrets
    assert served == {TOKEN}
    assert [d for d in data if d["kind"] == "ConfigMap" and secrets & set(d["data"])] == []


def test_a_pod_of_the_gate_has_the_least_rights() -> None:
    """No root, no token, no capability, nothing writable but its volumes. A job is tried once, and not for ever."""
    assert [pod.get("restartPolicy") for pod in pods()].count("Never") == 3
    for pod in pods():
        assert pod["automountServiceAccountToken"] is False
        assert pod["securityContext"]["runAsNonRoot"] is True
        (container,) = pod["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        claimed = {one["name"] for one in pod["volumes"]}
        assert {one["name"] for one in container["volumeMounts"]} == claimed
    jobs = [
        d
        for _, o in OBJECTS
        for d in (o, *below(o, "jobTemplate"), *below(o, "job"))
        if "backoffLimit" in d.get("spec", {})
    ]
    assert [job["spec"]["backoffLimit"] for job in jobs] == [0, 0, 0]
    assert all(job["spec"]["activeDeadlineSeconds"] <= 1200 for job in jobs)


def test_what_pods_name_is_declared() -> None:
    """Secret, ConfigMap, claim and service account are in the same folder."""
    declared = {name for name, _ in OBJECTS}
    for pod in pods():
        (container,) = pod["containers"]
        named = {f"ServiceAccount {pod['serviceAccountName']}"}
        named |= {f"ConfigMap {one['name']}" for one in below(container, "configMapRef")}
        named |= {f"Secret {one['name']}" for one in below(container, "secretRef")}
        named |= {f"PersistentVolumeClaim {one}" for one in below(pod, "claimName")}
        assert len(named) >= 3
        assert named <= declared


RELEASES = ("2025-01-13.1", "2025-01-12.9", "")


@pytest.mark.parametrize(("decision", "release"), list(itertools.product([*Decision, "", "PROMOTE"], RELEASES)))
def test_argo_goes_on_for_a_promote_of_this_release_alone(decision: str, release: str) -> None:
    """Aborts for its rollback; all else is neither, and so pauses. The conditions are evaluated as they stand."""
    (metric,) = [d["spec"]["metrics"][0] for name, d in OBJECTS if name == "AnalysisTemplate replaygate-verdict"]
    seen = {"decision": decision, "release": release}

    def holds(condition: str) -> bool:
        terms = re.findall(r'result\.(\w+) == "([^"]*)"', condition.replace("{{args.release}}", RELEASES[0]))
        assert len(terms) == condition.count(" && ") + 1 == 2
        return all(seen[name] == wanted for name, wanted in terms)

    mine = release == RELEASES[0]
    assert holds(metric["successCondition"]) is (mine and decision == Decision.PROMOTE)
    assert holds(metric["failureCondition"]) is (mine and decision == Decision.ROLLBACK)
    assert (metric["failureLimit"], metric["inconclusiveLimit"]) == (0, 0)


def test_the_server_answers_at_the_addresses_that_controllers_are_given(tmp_path: Path) -> None:
    """A hold to Argo, and a no to every hook of Flagger, by a gate that has judged nothing."""
    token = "a-token-of-the-server-0123"
    desk = Desk(tmp_path, dt.timedelta(hours=1), lambda: dt.datetime(2026, 1, 2, tzinfo=dt.UTC), token)
    (web,) = [one for _, d in OBJECTS for one in below(d, "web")]
    told = desk.get(web["url"].removeprefix(HOST), web["headers"][0]["value"].replace("{{args.token}}", token))
    assert (told.status, json.loads(told.text)["decision"]) == (200, "hold")
    (hooks,) = [one for _, d in OBJECTS for one in below(d, "webhooks")]
    assert [hook["url"] for hook in hooks] == [f"{HOST}/v1/flagger/{hook['type']}" for hook in hooks]
    for hook in hooks:
        body = json.dumps({"metadata": {**hook["metadata"], "token": token}}).encode()
        no = desk.post(hook["url"].removeprefix(HOST), body, "")
        assert (no.status, "not judged" in no.text) == (403, True)
    (service,) = [d for name, d in OBJECTS if name == "Service replaygate"]
    assert f"http://replaygate:{service['spec']['ports'][0]['port']}" == HOST


def test_gitlab_lets_no_verdict_but_promote_go_on() -> None:
    """No `allow_failure`: a hold that is orange runs the later stages. The reports are kept in every case."""
    _, jobs = documents(FOLDER / "gitlab.yml")
    (job,) = jobs.values()
    assert "allow_failure" not in job
    assert job["artifacts"]["when"] == "always"
    text = (FOLDER / "gitlab.yml").read_text(encoding="utf-8")
    inputs = documents(FOLDER / "gitlab.yml")[0]["spec"]["inputs"]
    assert set(re.findall(r"\$\[\[ inputs\.(\w+) \]\]", text)) == set(inputs)


def test_kubernetes_takes_the_objects() -> None:
    """By its own schemas, strictly, where they are installed; CI has them. Argo's job is one of them, too."""
    validate = pytest.importorskip("kubernetes_validate", reason="kubernetes-validate is not installed")
    own = [d for _, d in OBJECTS if not {"argoproj.io", "flagger.app"} & set(d["apiVersion"].split("/"))]
    jobs = [{"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "run"}, **j} for j in below(OBJECTS, "job")]
    assert (len(own), len(jobs)) == (9, 1)
    for made in (*own, *jobs):
        validate.validate(made, "1.33", strict=True)
