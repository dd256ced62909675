"""What must hold in the rendered manifests of k8s/ and no schema knows. Run by .ci/k8s, which sets RENDERED."""

import os
import re
import unittest
from pathlib import Path
from urllib.parse import urlsplit

import yaml

RENDERED = Path(os.environ["RENDERED"])
# GOTRUE_API_MAX_REQUEST_DURATION at its default, in seconds.
GOTRUE_LONGEST_REQUEST = 10


def seconds(text):
    number, unit = re.fullmatch(r"(\d+)(ms|s|m)", text).groups()
    return int(number) * {"ms": 0.001, "s": 1, "m": 60}[unit]


def port_of(address):
    return int(address.rsplit(":", 1)[1])


class Rendered:
    """One overlay as kustomize renders it."""

    def __init__(self, path):
        self.objects = [each for each in yaml.safe_load_all(path.read_text()) if each]
        deployment = self.one("Deployment", "gotrue")
        self.template = deployment["spec"]["template"]
        self.pod = self.template["spec"]
        self.sidecar = next(c for c in self.pod["initContainers"] if c["name"] == "sidecar")
        self.gotrue = next(c for c in self.pod["containers"] if c["name"] == "gotrue")
        self.ports = {port["name"]: port["containerPort"] for port in self.sidecar["ports"]}
        self.config = yaml.safe_load(self.config_map(self.volume("config")["configMap"]["name"])["sidecar.yaml"])
        self.environment = self.config_map(self.gotrue["envFrom"][0]["configMapRef"]["name"])

    def all(self, kind):
        return [each for each in self.objects if each["kind"] == kind]

    def one(self, kind, name):
        return next(each for each in self.all(kind) if each["metadata"]["name"] == name)

    def config_map(self, name):
        return self.one("ConfigMap", name)["data"]

    def volume(self, name):
        return next(each for each in self.pod["volumes"] if each["name"] == name)

    def mount(self, name):
        return next(each for each in self.sidecar["volumeMounts"] if each["name"] == name)

    def pods(self):
        jobs = [each["spec"]["jobTemplate"] for each in self.all("CronJob")]
        return [each["spec"]["template"] for each in self.all("Deployment") + jobs]

    def containers(self):
        for template in self.pods():
            yield from template["spec"].get("initContainers", []) + template["spec"]["containers"]


class Manifests:
    """The rules for every overlay."""

    overlay = None

    def setUp(self):
        self.it = Rendered(RENDERED / f"{self.overlay}.yaml")

    def test_the_sidecar_is_a_native_sidecar_and_the_last_init_container(self):
        it = self.it
        self.assertEqual(it.sidecar["restartPolicy"], "Always")
        self.assertIs(it.pod["initContainers"][-1], it.sidecar)

    def test_container_ports_are_the_listeners_of_the_config_file(self):
        it = self.it
        expected = {"http": port_of(it.config["listen"]), "admin": port_of(it.config["admin"]["listen"])}
        self.assertEqual(it.ports, expected)

    def test_gotrue_listens_on_the_loopback_address_the_sidecar_forwards_to(self):
        it = self.it
        upstream = urlsplit(it.config["upstream"]["url"])
        self.assertEqual(it.environment["GOTRUE_API_HOST"], "127.0.0.1")
        self.assertEqual(upstream.hostname, "127.0.0.1")
        self.assertEqual(it.environment["GOTRUE_API_PORT"], str(upstream.port))
        self.assertNotIn(upstream.port, it.ports.values())
        self.assertNotIn("ports", it.gotrue)

    def test_public_addresses_do_not_name_the_loopback_address(self):
        it = self.it
        for name in ("API_EXTERNAL_URL", "GOTRUE_JWT_ISSUER", "GOTRUE_SITE_URL"):
            self.assertNotIn("127.0.0.1", it.environment[name])

    def test_probes_ask_the_admin_listener_and_only_readiness_asks_for_gotrue(self):
        it = self.it
        for probe, path in (("startup", "/livez"), ("liveness", "/livez"), ("readiness", "/readyz")):
            self.assertEqual(it.sidecar[f"{probe}Probe"]["httpGet"], {"path": path, "port": "admin"})
        upstream = it.config["upstream"]["url"]
        self.assertEqual(it.gotrue["readinessProbe"]["exec"]["command"][-1], f"{upstream}/health")

    def test_the_drain_fits_into_the_grace_period(self):
        it = self.it
        self.assertEqual(it.sidecar["lifecycle"]["preStop"]["exec"]["command"], ["/sidecar", "drain"])
        held_back = it.gotrue["lifecycle"]["preStop"]["sleep"]["seconds"]
        delay, deadline = (seconds(it.config["drain"][key]) for key in ("delay", "deadline"))
        self.assertLess(delay, held_back, "GoTrue stops before the sidecar has stopped accepting")
        needed = held_back + GOTRUE_LONGEST_REQUEST + delay + deadline
        self.assertLessEqual(needed, it.pod["terminationGracePeriodSeconds"])

    def test_users_are_numbers_not_root_and_not_shared(self):
        it = self.it
        user = it.sidecar["securityContext"]["runAsUser"]
        self.assertNotEqual(user, it.gotrue["securityContext"]["runAsUser"])
        self.assertNotEqual(user, 1000)
        for container in it.containers():
            self.assertGreater(container["securityContext"]["runAsUser"], 0, container["name"])

    def test_every_container_meets_the_restricted_pod_security_standard(self):
        it = self.it
        for template in it.pods():
            self.assertTrue(template["spec"]["securityContext"]["runAsNonRoot"])
            self.assertEqual(template["spec"]["securityContext"]["seccompProfile"], {"type": "RuntimeDefault"})
            self.assertFalse(template["spec"]["automountServiceAccountToken"])
            self.assertFalse(template["spec"]["enableServiceLinks"])
        for container in it.containers():
            context = container["securityContext"]
            self.assertFalse(context["allowPrivilegeEscalation"], container["name"])
            self.assertTrue(context["readOnlyRootFilesystem"], container["name"])
            self.assertEqual(context["capabilities"], {"drop": ["ALL"]}, container["name"])

    def test_every_container_has_a_memory_limit_and_no_cpu_limit(self):
        it = self.it
        for container in it.containers():
            self.assertEqual(list(container["resources"]["limits"]), ["memory"], container["name"])

    def test_images_are_pinned(self):
        it = self.it
        for container in it.containers():
            tag = container["image"].rpartition("/")[2].partition(":")[2]
            self.assertRegex(tag, r"^v?\d+\.\d+\.\d+", container["image"])

    def test_secret_files_of_the_config_are_mounted(self):
        it = self.it
        folder = it.mount("secrets")["mountPath"]
        mounted = {f"{folder}/{item['path']}" for item in it.volume("secrets")["secret"]["items"]}
        named = {value for part in it.config.values() if isinstance(part, dict)
                 for key, value in part.items() if key.endswith("_file")}
        self.assertEqual(named, mounted)
        self.assertEqual(it.volume("secrets")["secret"]["defaultMode"], 0o440)

    def test_the_config_file_is_where_the_sidecar_looks_for_it(self):
        it = self.it
        environment = {each["name"]: each["value"] for each in it.sidecar["env"]}
        self.assertEqual(environment["SIDECAR_CONFIG"], f"{it.mount('config')['mountPath']}/sidecar.yaml")

    def test_volumes_are_mounted_whole_and_not_inside_each_other(self):
        it = self.it
        paths = [each["mountPath"] for each in it.sidecar["volumeMounts"]]
        self.assertFalse([each for each in it.sidecar["volumeMounts"] if "subPath" in each])
        self.assertFalse([(a, b) for a in paths for b in paths if a != b and b.startswith(f"{a}/")])

    def test_the_service_leads_to_the_public_listener(self):
        it = self.it
        port = it.one("Service", "auth")["spec"]["ports"][0]
        self.assertEqual((port["port"], port["targetPort"]), (9999, it.ports["http"]))

    def test_every_selector_finds_a_pod(self):
        it = self.it
        labels = [template["metadata"]["labels"].items() for template in it.pods()]
        selectors = [each["spec"]["selector"] for each in it.all("Service")]
        selectors += [each["spec"]["podSelector"]["matchLabels"] for each in it.all("NetworkPolicy")]
        for kind in ("Deployment", "PodDisruptionBudget", "PodMonitor"):
            selectors += [each["spec"]["selector"]["matchLabels"] for each in it.all(kind)]
        for selector in selectors:
            self.assertTrue([each for each in labels if selector.items() <= each], selector)

    def test_policies_and_monitors_name_ports_that_exist(self):
        it = self.it
        for policy in it.all("NetworkPolicy"):
            for port in policy["spec"]["ingress"][0]["ports"]:
                self.assertIn(port["port"], it.ports.values())
        for monitor in it.all("PodMonitor"):
            for endpoint in monitor["spec"]["podMetricsEndpoints"]:
                self.assertEqual((endpoint["port"], endpoint["path"]), ("admin", "/metrics"))

    def test_the_audit_is_the_sidecars_image_with_its_settings_and_a_database(self):
        it = self.it
        for job in it.all("CronJob"):
            self.assertEqual(job["spec"]["concurrencyPolicy"], "Forbid")
            pod = job["spec"]["jobTemplate"]["spec"]["template"]["spec"]
            audit, = pod["containers"]
            self.assertEqual(audit["image"], it.sidecar["image"])
            self.assertEqual(audit["args"][0], "audit")
            self.assertEqual(audit["volumeMounts"], it.sidecar["volumeMounts"])
            self.assertEqual(pod["volumes"], it.pod["volumes"])
            environment = {each["name"]: each for each in audit["env"]}
            self.assertEqual([environment["SIDECAR_CONFIG"]], it.sidecar["env"])
            self.assertIn("secretKeyRef", environment["SIDECAR_DATABASE_URL"]["valueFrom"])

    def test_alerts_ask_for_metrics_that_exist(self):
        catalogue = set(re.findall(r'"(gotrue_sidecar_\w+)"', Path("src/metrics/catalogue.rs").read_text()))
        for rule in self.it.all("PrometheusRule"):
            for alert in (each for group in rule["spec"]["groups"] for each in group["rules"]):
                named = set(re.findall(r"gotrue_sidecar_\w+", alert["expr"]))
                self.assertTrue(named and named <= catalogue, alert["alert"])

    def test_the_dockerfile_has_the_same_ports_and_user(self):
        it, dockerfile = self.it, Path("Dockerfile").read_text()
        exposed = re.search(r"^EXPOSE (.*)$", dockerfile, re.MULTILINE).group(1).split()
        self.assertEqual(sorted(map(int, exposed)), sorted(it.ports.values()))
        context = it.sidecar["securityContext"]
        self.assertIn(f"\nUSER {context['runAsUser']}:{context['runAsGroup']}\n", dockerfile)


class Base(Manifests, unittest.TestCase):
    overlay = "base"


class Dev(Manifests, unittest.TestCase):
    overlay = "dev"

    def test_dev_brings_the_redis_and_the_secrets_that_the_sidecar_names(self):
        dev = self.it
        store = urlsplit(dev.config["store"]["url"])
        self.assertEqual(dev.one("Service", store.hostname)["spec"]["ports"][0]["port"], store.port)
        secret = dev.one("Secret", dev.volume("secrets")["secret"]["secretName"])
        wanted = {item["key"] for item in dev.volume("secrets")["secret"]["items"]}
        wanted |= {each["valueFrom"]["secretKeyRef"]["key"] for each in dev.gotrue["env"]}
        self.assertEqual(set(secret["data"]), wanted)


class Prod(Manifests, unittest.TestCase):
    overlay = "prod"

    def test_prod_is_monitored_and_audited_and_keeps_its_secrets_elsewhere(self):
        self.assertTrue(self.it.all("PodMonitor"))
        self.assertTrue(self.it.all("PrometheusRule"))
        self.assertTrue(self.it.all("CronJob"))
        self.assertFalse(self.it.all("Secret"))


if __name__ == "__main__":
    unittest.main()
