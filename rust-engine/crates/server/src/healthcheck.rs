//! `quern-engine healthcheck`: asks a running engine how it is, for the health checks of containers.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::runtime::Builder;
use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

/// How long the engine may take to answer; shorter than the time that container platforms give by default.
const LIMIT: Duration = Duration::from_secs(3);

/// Fails unless the engine that was told to listen on `address` says that it serves.
pub(crate) fn run(address: &str) -> Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build().context("can't start")?;
    let answer = runtime.block_on(async { tokio::time::timeout(LIMIT, ask(address)).await });
    answer.with_context(|| format!("the engine on {address} gave no answer within {} s", LIMIT.as_secs()))?
}

async fn ask(address: &str) -> Result<()> {
    let endpoint = Endpoint::from_shared(dialled(address)?).with_context(|| format!("`{address}` is no address"))?;
    let channel = endpoint.connect().await.with_context(|| format!("nothing listens on {address}"))?;
    let answer = HealthClient::new(channel).check(HealthCheckRequest::default()).await;
    let status = answer.with_context(|| format!("the engine on {address} can't say how it is"))?.into_inner().status;
    if status != ServingStatus::Serving as i32 {
        bail!("the engine on {address} is not serving: it starts or drains");
    }
    Ok(())
}

/// The URI to dial for an address to listen on: loopback where that is every address.
fn dialled(address: &str) -> Result<String> {
    if address.starts_with("unix://") {
        return Ok(address.to_owned());
    }
    let Some((host, port)) = address.strip_prefix("tcp://").and_then(|rest| rest.rsplit_once(':')) else {
        bail!("`--listen {address}` must be unix:///path or tcp://host:port");
    };
    let host = match host {
        "" | "0.0.0.0" => "127.0.0.1",
        "[::]" => "[::1]",
        host => host,
    };
    Ok(format!("http://{host}:{port}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic_health::ServingStatus::{NotServing, Serving};

    #[test]
    fn what_is_dialled() {
        let at = |address| dialled(address).expect("an address");
        assert_eq!(at("tcp://0.0.0.0:9091"), "http://127.0.0.1:9091");
        assert_eq!(at("tcp://[::]:9091"), "http://[::1]:9091");
        assert_eq!(at("tcp://engine:9091"), "http://engine:9091");
        assert_eq!(at("unix:///run/e.sock"), "unix:///run/e.sock");
        assert!(dialled("9091").is_err());
    }

    #[test]
    fn answers_of_a_real_server() {
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
        let (health, service) = tonic_health::server::health_reporter();
        let socket = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).expect("a port");
        let address = format!("tcp://{}", socket.local_addr().expect("an address"));
        let incoming = tonic::transport::server::TcpIncoming::from(socket);
        runtime.spawn(tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming));
        runtime.block_on(health.set_service_status("", Serving));
        run(&address).expect("it serves");
        runtime.block_on(health.set_service_status("", NotServing));
        assert!(format!("{:#}", run(&address).expect_err("it drains")).contains("not serving"));
    }

    #[test]
    fn nobody_listens() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = format!("tcp://{}", socket.local_addr().expect("an address"));
        // The system accepts and nobody answers.
        assert!(format!("{:#}", run(&address).expect_err("silence")).contains("within 3 s"));
        drop(socket);
        assert!(format!("{:#}", run(&address).expect_err("nothing")).contains("nothing listens"));
    }
}
