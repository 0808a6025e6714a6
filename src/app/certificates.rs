//! The listeners' certificates: where each comes from by the configuration, and when they are loaded again.

use std::net::IpAddr;
use std::sync::Arc;

use tracing::{error, info};

use crate::cli::Failure;
use crate::clock;
use crate::config::{Certificate, Config, ListenerTls};
use crate::net::tls::{
    CertificateFiles, CertificateNames, CertificateSource, PrivateCa, PrivateCertificate, ServerTls, TlsSetupError,
};

/// The certificates of all listeners that speak TLS.
#[derive(Clone)]
pub(super) struct ListenerCertificates {
    /// The private CA, if a listener uses a certificate of it.
    ca: Option<Arc<PrivateCa>>,
    served: Vec<Served>,
}

/// The certificates of one listener.
#[derive(Clone)]
struct Served {
    /// Their names in the configuration, the default first.
    names: Vec<String>,
    tls: ServerTls,
}

impl ListenerCertificates {
    /// Opens the private CA, or makes it, where a listener uses a certificate of it. Blocks on files.
    ///
    /// # Errors
    /// What is wrong with the CA's files, as a bad configuration.
    pub(super) fn open(config: &Config) -> Result<Self, Failure> {
        let mut used = config
            .listeners
            .iter()
            .filter(|listener| listener.tls != ListenerTls::Off);
        let is_private = |name: &String| config.certificates.get(name) == Some(&Certificate::SelfSigned);
        let ca = if used.any(|listener| listener.certificates.iter().any(is_private)) {
            let server = &config.server;
            let ca = PrivateCa::open(&server.state_dir, &server.hostname, clock::now()).map_err(refused)?;
            Some(Arc::new(ca))
        } else {
            None
        };
        Ok(Self { ca, served: Vec::new() })
    }

    /// Loads the certificates `names` for one listener. Blocks on files.
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

    /// The private CA, if a listener uses a certificate of it.
    pub(super) fn ca(&self) -> Option<Arc<PrivateCa>> {
        self.ca.clone()
    }

    /// Does `load`, which blocks on files, for one listener after the other, because several may share a certificate of the
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
                names: CertificateNames::new(&config.server.hostname, addresses(name, config)),
            }),
        })
    }
}

/// The addresses of all listeners that show the certificate `name`.
fn addresses<'a>(name: &'a str, config: &'a Config) -> impl Iterator<Item = IpAddr> + 'a {
    let shows = move |names: &[String]| names.iter().any(|one| one == name);
    let listeners = config.listeners.iter();
    listeners
        .filter(move |listener| listener.tls != ListenerTls::Off && shows(&listener.certificates))
        .flat_map(|listener| listener.addresses.iter().map(std::net::SocketAddr::ip))
}

fn refused(error: TlsSetupError) -> Failure {
    Failure::configuration(error.to_string())
}
