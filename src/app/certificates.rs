//! The certificates of the listeners and of the public side: where each comes from by the configuration, and when they are loaded again.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use tracing::{error, info};

use crate::cli::Failure;
use crate::clock;
use crate::config::{Certificate, Config, ListenerTls};
use crate::net::tls::{
    CertificateFiles, CertificateNames, CertificateSource, PrivateCa, PrivateCertificate, ServerTls, TlsSetupError,
};

/// The certificates of all that speak TLS to clients: listeners and the public side.
#[derive(Clone)]
pub(super) struct ListenerCertificates {
    /// The private CA, if any of them uses a certificate of it.
    ca: Option<Arc<PrivateCa>>,
    served: Vec<Served>,
}

/// The certificates of one of them.
#[derive(Clone)]
struct Served {
    /// Their names in the configuration, the default first.
    names: Vec<String>,
    tls: ServerTls,
}

impl ListenerCertificates {
    /// Opens the private CA, or makes it, where anybody uses a certificate of it. Blocks on files.
    ///
    /// # Errors
    /// What is wrong with the CA's files, as a bad configuration.
    pub(super) fn open(config: &Config) -> Result<Self, Failure> {
        let listeners = config
            .listeners
            .iter()
            .filter(|listener| listener.tls != ListenerTls::Off);
        let mut used = listeners
            .flat_map(|listener| &listener.certificates)
            .chain(of_web(config));
        let ca = if used.any(|name| config.certificates.get(name) == Some(&Certificate::SelfSigned)) {
            let server = &config.server;
            let ca = PrivateCa::open(&server.state_dir, &server.hostname, clock::now()).map_err(refused)?;
            Some(Arc::new(ca))
        } else {
            None
        };
        Ok(Self { ca, served: Vec::new() })
    }

    /// Loads the certificates `names` for one listener, or for the public side. Blocks on files.
    ///
    /// # Errors
    /// What is wrong with one of them, as a bad configuration.
    pub(super) fn serve(&mut self, names: &[String], config: &Config) -> Result<ServerTls, Failure> {
        let tls = ServerTls::load(self.sources(names, config), clock::now()).map_err(refused)?;
        self.served.push(Served {
            names: names.to_owned(),
            tls: tls.clone(),
        });
        Ok(tls)
    }

    /// Loads all of them again, as `config` has them. What goes wrong is logged, and the old ones stay.
    pub(super) async fn reload(&self, config: Arc<Config>) {
        self.each(move |all, served| {
            let sources = all.sources(&served.names, &config);
            served.tls.reload(sources, clock::now()).map(|()| true)
        })
        .await;
    }

    /// Loads those again whose files have changed, and renews those of the private CA that need it. What goes wrong is
    /// logged, and the old ones stay.
    pub(super) async fn look(&self) {
        self.each(|_, served| served.tls.look(clock::now())).await;
    }

    /// The private CA, if anybody uses a certificate of it.
    pub(super) fn ca(&self) -> Option<Arc<PrivateCa>> {
        self.ca.clone()
    }

    /// Does `load`, which blocks on files, for one after the other, because several may share a certificate of the
    /// private CA, which the first of them writes.
    async fn each(&self, load: impl Fn(&Self, &Served) -> Result<bool, TlsSetupError> + Send + 'static) {
        let all = self.clone();
        let done = tokio::task::spawn_blocking(move || {
            for served in &all.served {
                match load(&all, served) {
                    Ok(true) => info!("certificates read again"),
                    Ok(false) => {}
                    Err(error) => error!(%error, "certificates could not be read, the old ones stay"),
                }
            }
        });
        if let Err(error) = done.await {
            error!(%error, "certificates could not be read, the old ones stay");
        }
    }

    fn sources(&self, names: &[String], config: &Config) -> Vec<CertificateSource> {
        names.iter().filter_map(|name| self.source(name, config)).collect()
    }

    fn source(&self, name: &str, config: &Config) -> Option<CertificateSource> {
        Some(match config.certificates.get(name)? {
            Certificate::Files { cert_file, key_file } => CertificateSource::Files(CertificateFiles {
                cert_file: cert_file.clone(),
                key_file: key_file.clone(),
            }),
            Certificate::SelfSigned => CertificateSource::Private(PrivateCertificate {
                ca: self.ca.clone()?,
                name: name.to_owned(),
                names: CertificateNames::new(hosts(name, config), addresses(name, config)),
            }),
        })
    }
}

/// The name of the public side's certificate, if it is on and has one.
fn of_web(config: &Config) -> Option<&String> {
    config.web.certificate.as_ref().filter(|_| config.web.listen.is_some())
}

/// The hosts by which those are called that show the certificate `name`.
fn hosts<'a>(name: &str, config: &'a Config) -> impl Iterator<Item = &'a str> {
    let is_of_web = of_web(config).is_some_and(|of_web| of_web == name);
    let public_url = config.web.public_url.as_ref().filter(|_| is_of_web);
    std::iter::once(config.server.hostname.as_str()).chain(public_url.and_then(|url| url.host_str()))
}

/// The addresses of all that show the certificate `name`.
fn addresses<'a>(name: &'a str, config: &'a Config) -> impl Iterator<Item = IpAddr> + 'a {
    let shows = move |names: &[String]| names.iter().any(|one| one == name);
    let listeners = config.listeners.iter();
    let web = config
        .web
        .listen
        .filter(move |_| of_web(config).is_some_and(|of_web| of_web == name));
    listeners
        .filter(move |listener| listener.tls != ListenerTls::Off && shows(&listener.certificates))
        .flat_map(|listener| listener.addresses.iter().map(SocketAddr::ip))
        .chain(web.map(|address| address.ip()))
}

fn refused(error: TlsSetupError) -> Failure {
    Failure::configuration(error.to_string())
}
