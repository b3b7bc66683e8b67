"""The files of deploy/, each checked by its own tool where that is installed, else for what must hold in it."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

import approvals_bot
from approvals_bot.testing import FakeClock

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"


def tool(name: str, *arguments: str | Path, cwd: Path = DEPLOY) -> str:
    """Return what this tool says. Skips the test where it isn't installed; an exit code above 0 fails it."""
    found = shutil.which(name) or shutil.which(name, path="/usr/sbin")
    if found is None:
        pytest.skip(f"{name} is not installed: this file was not checked by it")
    ran = subprocess.run(
        [found, *map(str, arguments)], cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=60
    )
    assert ran.returncode == 0, ran.stdout
    return ran.stdout


def loaded(path: Path) -> Any:
    return yaml.safe_load(path.read_text())


def certificate(folder: Path) -> tuple[Path, Path]:
    """Write a certificate and its key, for nginx to read."""
    key, now = ec.generate_private_key(ec.SECP256R1()), FakeClock().now()
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "approvals.acme.eu")])
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now.replace(year=now.year + 9))
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    (folder / "fullchain.pem").write_bytes(made.public_bytes(pem))
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "privkey.pem").write_bytes(private)
    return folder / "fullchain.pem", folder / "privkey.pem"


def test_systemd_accepts_the_unit(tmp_path: Path) -> None:
    unit = (DEPLOY / "approvals-bot.service").read_text()
    assert "Type=notify" in unit
    here = tmp_path / "approvals-bot.service"
    here.write_text(unit.replace("/opt/approvals/bin/approvals-bot", sys.executable))
    assert tool("systemd-analyze", "verify", here) == ""


def test_the_unit_is_confined() -> None:
    said = tool("systemd-analyze", "security", "--offline=true", DEPLOY / "approvals-bot.service")
    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", said)
    assert found is not None
    assert float(found[1]) <= 2.0, said


def test_nginx_accepts_its_file(tmp_path: Path) -> None:
    chain, key = certificate(tmp_path)
    text = (DEPLOY / "nginx.conf").read_text()
    for path, to in (("/etc/ssl/approvals/fullchain.pem", chain), ("/etc/ssl/approvals/privkey.pem", key)):
        text = text.replace(path, str(to))
    (tmp_path / "approvals.conf").write_text(text.replace("/var/log/nginx/", f"{tmp_path}/"))
    whole = tmp_path / "nginx.conf"
    whole.write_text(
        f"events {{}} pid {tmp_path}/pid; error_log {tmp_path}/error.log;\n"
        f"http {{ access_log {tmp_path}/access.log; include {tmp_path}/approvals.conf; }}\n"
    )
    tool("nginx", "-t", "-c", whole)


def test_caddy_accepts_its_file(tmp_path: Path) -> None:
    text = (DEPLOY / "Caddyfile").read_text()
    if tool("caddy", "version").startswith(("2.6", "v2.6")):  # of Debian 12: it calls that otherwise
        text = text.replace("request_buffers 12MB", "buffer_requests")
    here = tmp_path / "Caddyfile"
    here.write_text(text)
    assert "Valid configuration" in tool("caddy", "validate", "--config", here, "--adapter", "caddyfile")


@pytest.mark.parametrize("name", ["nginx.conf", "Caddyfile"])
def test_proxies_log_no_links_and_buffer_no_streams(name: str) -> None:
    text = (DEPLOY / name).read_text()
    assert "decisions" in text
    assert "webhooks" in text
    assert re.search(r"proxy_buffering +off|flush_interval -1", text)


def test_proxies_send_nothing_twice_that_would_count_twice() -> None:
    places = re.findall(r"location ([^{]+) \{\n(.*?)\n    \}", (DEPLOY / "nginx.conf").read_text(), re.DOTALL)
    once = [place for place, text in places if "proxy_next_upstream error timeout http_503;" in re.sub(" +", " ", text)]
    assert once == ["/api/", "/webhooks/", "~ ^/(live$|api/chat|mcp$)"]
    assert "not path /api/* /webhooks/* /mcp\n" in (DEPLOY / "Caddyfile").read_text()


def test_prometheus_accepts_the_alerts() -> None:
    assert "SUCCESS" in tool("promtool", "check", "rules", "prometheus/alerts.yml")


def test_each_alert_fires_on_its_trouble_only() -> None:
    alerts = [rule["alert"] for rule in loaded(DEPLOY / "prometheus/alerts.yml")["groups"][0]["rules"]]
    planted = [case["name"] for case in loaded(DEPLOY / "prometheus/alerts.test.yml")["tests"]]
    assert planted == [*alerts, "healthy"]
    assert "SUCCESS" in tool("promtool", "test", "rules", "alerts.test.yml", cwd=DEPLOY / "prometheus")


def expressions() -> Sequence[str]:
    """Return every expression of the alerts and of the dashboard."""
    rules = loaded(DEPLOY / "prometheus/alerts.yml")["groups"][0]["rules"]
    panels = json.loads((DEPLOY / "grafana/approvals.json").read_text())["panels"]
    return [rule["expr"] for rule in rules] + [target["expr"] for panel in panels for target in panel["targets"]]


def test_alerts_and_dashboard_use_documented_metrics() -> None:
    documented = set(re.findall(r"approvals_\w+", (ROOT / "docs/monitoring.md").read_text()))
    used = {name for text in expressions() for name in re.findall(r"approvals_\w+", text)}
    plain = {re.sub(r"_bucket$|_count$|_sum$", "", name) for name in used}
    assert {name for name in plain if name not in documented and name.removesuffix("_total") not in documented} == set()


def test_the_dashboard_has_a_place_for_each_panel() -> None:
    panels = json.loads((DEPLOY / "grafana/approvals.json").read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken = [
        (x, y)
        for panel in panels
        for x in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for y in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    ]
    assert len(set(taken)) == len(taken)
    assert all(panel["title"] and panel["targets"] for panel in panels)


def test_the_image_copies_what_is_there_and_is_not_root() -> None:
    lines = (DEPLOY / "Dockerfile").read_text().splitlines()
    words = [line.split() for line in lines if line.startswith("COPY ") and "--from" not in line]
    sources = [source for _, *named, _ in words for source in named]
    assert sources
    assert [source for source in sources if not (ROOT / source).exists()] == []
    kept = [line[1:] for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines() if line.startswith("!")]
    assert sorted(kept) == sorted(source.removeprefix("./") for source in sources)
    assert "USER 10001:10001" in lines
    assert any(line.startswith("HEALTHCHECK ") for line in lines)


def test_the_image_has_a_list_of_what_is_in_it() -> None:
    installed = re.search(r"--require-hashes -r (\S+)", (DEPLOY / "Dockerfile").read_text())
    assert installed is not None
    recipe = (ROOT / "Makefile").read_text().partition("\nsbom:")[2].partition("\n\n")[0]
    listed = dict(re.findall(r"cyclonedx-py requirements (\S+) .*--output-file dist/(\S+)", recipe))
    assert listed[f"deploy/{installed[1]}"] == "approvals-bot-image.cdx.json"


def test_compose_publishes_the_proxy_alone() -> None:
    services = loaded(DEPLOY / "compose.yaml")["services"]
    assert [name for name, service in services.items() if "ports" in service] == ["caddy"]
    replicas = {name: service for name, service in services.items() if service["image"] == "approvals-bot"}
    assert services["caddy"]["environment"]["UPSTREAMS"].split() == [f"{name}:8000" for name in replicas]
    for ours in replicas.values():
        assert ours["read_only"] is True
        assert ours["cap_drop"] == ["ALL"]
        assert (
            ROOT / ours["build"]["context"] / ours["build"]["dockerfile"]
        ).is_file()  # seen from --project-directory
    assert {name for service in services.values() for name in service.get("secrets", ())} == set(
        loaded(DEPLOY / "compose.yaml")["secrets"]
    )


def test_compose_accepts_its_file(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOMAIN", "approvals.acme.eu")
    tool("docker-compose", "-f", "compose.yaml", "--project-directory", "..", "config", "--quiet")


def test_one_restart_after_the_other_leaves_a_replica() -> None:
    """A proxy that sets a replica aside for seconds has none left while the other one restarts, and says 502."""
    servers = re.findall(r"^ +server \S+:80\d\d.*$", (DEPLOY / "nginx.conf").read_text(), re.MULTILINE)
    assert len(servers) == 2
    assert all("max_fails=0" in line for line in servers)
    caddy = (DEPLOY / "Caddyfile").read_text()
    assert "request_buffers" in caddy  # else a vote can't be sent again
    assert "fail_duration" not in caddy


def test_every_log_of_caddy_is_filtered() -> None:
    """The log of errors is the default one: a filter of the site's own log would leave links in it."""
    text = (DEPLOY / "Caddyfile").read_text()
    assert text.index("log default {") < text.index("format filter") < text.index("{$DOMAIN")
    assert re.search(r"^\tlog$", text, re.MULTILINE)


def test_the_version_is_the_same_everywhere() -> None:
    chart = loaded(DEPLOY / "helm/Chart.yaml")
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert {chart["version"], chart["appVersion"], approvals_bot.__version__} == {project["version"]}


def test_the_chart_uses_its_values_and_no_others() -> None:
    values = loaded(DEPLOY / "helm/values.yaml")
    text = "".join(path.read_text() for path in sorted((DEPLOY / "helm/templates").iterdir()))
    used = set(re.findall(r"\.Values\.([\w.]+)", text))
    assert {path for path in used if not _has(values, path.split("."))} == set()
    assert [key for key in values if not any(path.split(".")[0] == key for path in used)] == []


def test_helm_accepts_the_chart() -> None:
    assert "0 chart(s) failed" in tool("helm", "lint", "helm")


@pytest.mark.parametrize("name", [".github/workflows/ci.yml", ".github/dependabot.yml", ".pre-commit-config.yaml"])
def test_files_for_others_are_yaml(name: str) -> None:
    assert loaded(ROOT / name)


def _has(values: Any, path: Sequence[str]) -> bool:
    for key in path:
        if not isinstance(values, dict) or key not in values:
            return False
        values = values[key]
    return True
