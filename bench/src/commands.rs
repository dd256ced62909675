//! How contestants are started: their files and their command lines.

use std::{fmt::Write as _, fs, path::PathBuf, process::Command};

use crate::{
    contestant::{Contestant, Kind, Site, StartError},
    gotrue::JWT_SECRET,
    process::{MachineError, find_installed, find_program},
};

/// The pass-through proxy.
pub fn nginx(_: &Contestant, site: &Site<'_>) -> Result<Command, StartError> {
    let upstream = format!(
        "upstream gotrue {{ server {}; keepalive 64; keepalive_requests 1000000000; }}",
        site.upstream
    );
    let location = "proxy_pass http://gotrue;\n\
                    proxy_http_version 1.1;\n\
                    proxy_set_header Connection \"\";\n\
                    proxy_set_header Host $http_host;\n\
                    proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;";
    nginx_with(site, &upstream, location)
}

/// One that answers by itself, with nothing.
pub fn nginx_200(_: &Contestant, site: &Site<'_>) -> Result<Command, StartError> {
    nginx_with(site, "", "return 200 \"\";")
}

fn nginx_with(site: &Site<'_>, upstream: &str, location: &str) -> Result<Command, StartError> {
    let mut text = String::from(
        "daemon off;\nworker_processes 1;\nworker_rlimit_nofile 16384;\npid nginx.pid;\nerror_log stderr crit;\n",
    );
    if rustix::process::geteuid().is_root() {
        text.push_str("user root;\n");
    }
    let _ = write!(
        text,
        "events {{ worker_connections 8192; }}\n\
         http {{\n\
           access_log off;\n\
           keepalive_requests 1000000000;\n\
           client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;\n\
           uwsgi_temp_path uwsgi; scgi_temp_path scgi;\n\
           {upstream}\n\
           server {{\n\
             listen {listen};\n\
             location / {{\n\
               {location}\n\
             }}\n\
           }}\n\
         }}\n",
        listen = site.listen,
    );
    let file = site.folder.join("nginx.conf");
    fs::write(&file, text)?;
    let mut command = Command::new(find_program("nginx", "nginx")?);
    command.arg("-p").arg(site.folder).arg("-c").arg(file);
    Ok(command)
}

/// The pass-through proxy.
pub fn haproxy(_: &Contestant, site: &Site<'_>) -> Result<Command, StartError> {
    let text = format!(
        "global\n  nbthread 1\n  maxconn 4096\n\
         defaults\n  mode http\n  timeout connect 5s\n  timeout client 60s\n  timeout server 60s\n\
         \x20 http-reuse always\n  option forwardfor\n\
         frontend public\n  bind {}\n  default_backend gotrue\n\
         backend gotrue\n  server gotrue {}\n",
        site.listen, site.upstream
    );
    let file = site.folder.join("haproxy.cfg");
    fs::write(&file, text)?;
    let mut command = Command::new(find_program("haproxy", "haproxy")?);
    command.arg("-f").arg(file);
    Ok(command)
}

/// Its default configuration: metrics and access log (to `/dev/null`, like all its output) are on. It sees
/// one core, so it has one worker.
#[expect(clippy::unnecessary_wraps, reason = "as all that start somebody")]
pub fn sidecar(contestant: &Contestant, site: &Site<'_>) -> Result<Command, StartError> {
    let mut command = Command::new(site.sidecar);
    command.env("GOTRUE_JWT_SECRET", JWT_SECRET);
    command.args(["serve", "--listen", &site.listen.to_string()]);
    command.args(["--admin-listen", &site.admin.to_string()]);
    command.args(["--upstream-url", &format!("http://{}", site.upstream)]);
    if let Some(recorded) = contestant.recorded {
        command.arg(format!("--store-url=redis://{}/{}", site.store, recorded.database));
        // Redis tells of changed keys by their names alone: without names of its own, each would hear of all
        command.args(["--store-key-prefix", contestant.name]);
    }
    if contestant.kind == Kind::Check {
        // a machine that is busy with something else makes a figure bad, but fails no check
        command.args(["--store-timeout=10s", "--check-timeout=10s"]);
    }
    Ok(command)
}

/// As [`sidecar`], without the line for each request.
pub fn sidecar_without_access_log(contestant: &Contestant, site: &Site<'_>) -> Result<Command, StartError> {
    let mut command = sidecar(contestant, site)?;
    command.arg("--log-access=false");
    Ok(command)
}

/// Its defaults, sessions in Redis, no log. What it takes for its provider is the upstream.
pub fn oauth2_proxy(_: &Contestant, site: &Site<'_>) -> Result<Command, StartError> {
    let mut command = Command::new(oauth2_proxy_binary()?);
    command.args(["--provider=digitalocean", "--client-id=bench", "--client-secret=bench", "--scope=read"]);
    let (token, user) = ("/provider/token", "/provider/user");
    for (flag, path) in
        [("login", "/provider/login"), ("redeem", token), ("profile", user), ("validate", user)]
    {
        command.arg(format!("--{flag}-url=http://{}{path}", site.upstream));
    }
    command.arg(format!("--http-address={}", site.listen));
    command.args(["--upstream=static://200", "--email-domain=*", "--cookie-secure=false"]);
    command.args(["--cookie-secret=bench-secret-guards-nothing-0123", "--session-store-type=redis"]);
    command.arg(format!("--redis-connection-url=redis://{}/5", site.store));
    command.args(["--standard-logging=false", "--auth-logging=false", "--request-logging=false"]);
    Ok(command)
}

/// Where it is installed, if it is.
pub fn oauth2_proxy_binary() -> Result<PathBuf, MachineError> {
    find_installed("oauth2-proxy").ok_or(MachineError::NoOauth2Proxy)
}
