//! The place of a bucket of S3: the server, the path on it, and its name in signatures (AWS: "Amazon
//! S3 endpoints and quotas", "Virtual hosting of general purpose buckets").

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use super::signing::{Paths, Scope};
use crate::config::Endpoints;
use crate::identity::Region;

/// What S3 encodes in one segment of a path, and in a parameter.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');
/// The slashes of a key separate segments.
const KEY: &AsciiSet = &SEGMENT.remove(b'/');

/// The endings of the names of directory buckets and of their access points; their zone stands
/// before it.
const DIRECTORY: [&str; 2] = ["--x-s3", "--xa-s3"];
/// The ending of the alias of an access point on an outpost.
const OUTPOST_ALIAS: &str = "--op-s3";

/// Where the objects of a bucket are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place {
    /// Without a slash at its end.
    base: String,
    pub(crate) scope: Scope,
}

#[derive(Debug, thiserror::Error)]
pub(crate) enum PlaceError {
    #[error("the alias of an outpost cannot be used; name the ARN of its access point")]
    OutpostAlias,
    #[error("the name of this directory bucket is not valid; expected NAME--ZONE--x-s3")]
    Directory,
    #[error(
        "this ARN is not one of an access point in a region that can be used; expected arn:PARTITION:s3:REGION:ACCOUNT:accesspoint/NAME"
    )]
    Arn,
    #[error(
        "the access point is in {found}, another partition than {region}; name one of this partition"
    )]
    Partition { found: Region, region: Region },
    #[error("an ARN cannot be used with s3_endpoint_override; name a bucket")]
    ArnElsewhere,
}

impl Place {
    /// The place of `bucket`, which may also be the ARN of an access point, for a client in
    /// `region`.
    pub(crate) fn of(
        bucket: &str,
        region: &Region,
        endpoints: &Endpoints,
    ) -> Result<Self, PlaceError> {
        let is_arn = bucket.starts_with("arn:");
        if let Some(endpoint) = &endpoints.s3 {
            return match is_arn {
                true => Err(PlaceError::ArnElsewhere),
                false => Ok(Self::on_path(endpoint, bucket, region)),
            };
        }
        if is_arn {
            return Self::of_arn(bucket, region, endpoints.use_fips);
        }
        if bucket.ends_with(OUTPOST_ALIAS) {
            return Err(PlaceError::OutpostAlias);
        }
        let directory = DIRECTORY
            .into_iter()
            .find_map(|ending| bucket.strip_suffix(ending));
        if let Some(name) = directory {
            let (_, zone) = name
                .rsplit_once("--")
                .filter(|_| is_label(bucket))
                .ok_or(PlaceError::Directory)?;
            let fips = fips(endpoints.use_fips);
            let host = format!("{bucket}.s3express{fips}-{zone}");
            return Ok(Self::at(&host, "s3express", region));
        }
        Ok(match is_label(bucket) {
            true => {
                let fips = fips(endpoints.use_fips);
                Self::at(&format!("{bucket}.s3{fips}"), "s3", region)
            }
            false => Self::on_path(&regional(region, endpoints.use_fips), bucket, region),
        })
    }

    fn of_arn(arn: &str, region: &Region, use_fips: bool) -> Result<Self, PlaceError> {
        let parts: Vec<&str> = arn.splitn(6, ':').collect();
        let [_, _, service, home, account, resource] = parts[..] else {
            return Err(PlaceError::Arn);
        };
        let resource: Vec<&str> = resource.split([':', '/']).collect();
        let fips = fips(use_fips);
        let (service, labels, host) = match (service, &resource[..]) {
            ("s3", ["accesspoint", name]) => (
                "s3",
                [*name, account, "-"],
                format!("{name}-{account}.s3-accesspoint{fips}"),
            ),
            ("s3-object-lambda", ["accesspoint", name]) => (
                "s3-object-lambda",
                [*name, account, "-"],
                format!("{name}-{account}.s3-object-lambda{fips}"),
            ),
            ("s3-outposts", ["outpost", outpost, "accesspoint", name]) if !use_fips => (
                "s3-outposts",
                [*name, account, *outpost],
                format!("{name}-{account}.{outpost}.s3-outposts"),
            ),
            _ => return Err(PlaceError::Arn),
        };
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == '-';
        if !labels
            .into_iter()
            .all(|label| !label.is_empty() && label.chars().all(is_part))
        {
            return Err(PlaceError::Arn);
        }
        let home = Region::new(home).map_err(|_| PlaceError::Arn)?;
        if partition(&home) != partition(region) {
            return Err(PlaceError::Partition {
                found: home,
                region: region.clone(),
            });
        }
        Ok(Self::at(&host, service, &home))
    }

    /// On a server of its own.
    fn at(host: &str, service: &'static str, region: &Region) -> Self {
        Self {
            base: format!("https://{host}.{region}.{}", region.domain()),
            scope: Scope {
                service,
                region: region.as_str().to_owned(),
                paths: Paths::AsSent,
            },
        }
    }

    /// On a server with many buckets.
    fn on_path(endpoint: &str, bucket: &str, region: &Region) -> Self {
        let bucket = utf8_percent_encode(bucket, SEGMENT);
        Self {
            base: format!("{}/{bucket}", endpoint.trim_end_matches('/')),
            scope: Scope {
                service: "s3",
                region: region.as_str().to_owned(),
                paths: Paths::AsSent,
            },
        }
    }

    /// The address of an object's content.
    pub(crate) fn object(&self, key: &str, version: Option<&str>) -> String {
        let key = utf8_percent_encode(key, KEY);
        let mut address = format!("{}/{key}?x-id=GetObject", self.base);
        if let Some(version) = version {
            address.push_str("&versionId=");
            address.extend(utf8_percent_encode(version, SEGMENT));
        }
        address
    }
}

/// What distinguishes the partition of a region; two of them have one domain.
fn partition(region: &Region) -> (&str, bool) {
    (region.domain(), region.as_str().starts_with("us-gov-"))
}

/// The server of S3 in a region.
pub(crate) fn regional(region: &Region, use_fips: bool) -> String {
    format!("https://s3{}.{region}.{}", fips(use_fips), region.domain())
}

fn fips(use_fips: bool) -> &'static str {
    if use_fips { "-fips" } else { "" }
}

/// Whether a bucket's name can be one part of a host's name: certificates do not cover dots.
fn is_label(bucket: &str) -> bool {
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    (3..=63).contains(&bucket.len())
        && bucket.chars().all(|c| plain(c) || c == '-')
        && bucket.starts_with(plain)
        && bucket.ends_with(plain)
}

#[cfg(test)]
mod tests {
    use aws_sdk_s3::config::endpoint::{DefaultResolver, Params, ResolveEndpoint};

    use super::*;

    const REGIONS: [&str; 13] = [
        "us-east-1",
        "us-west-2",
        "eu-central-1",
        "ap-southeast-7",
        "mx-central-1",
        "us-gov-west-1",
        "cn-north-1",
        "eusc-de-east-1",
        "us-iso-east-1",
        "us-isob-east-1",
        "us-isof-south-1",
        "eu-isoe-west-1",
        "xx-new-1",
    ];

    const BUCKETS: [&str; 31] = [
        "revisions",
        "my-revisions-7",
        "a.bucket.with.dots",
        "10.0.0.1",
        "ab",
        "abc",
        "Upper",
        "under_score",
        "-begins",
        "ends-",
        "a b",
        "ä",
        "has/slash",
        "sixty-three-characters-are-the-longest-label-that-a-host-has-123",
        "sixty-three-characters-are-the-longest-label-that-a-host-has-12",
        "alias-abcdefghijklmnopqrstuvwxyz0123456789-s3alias",
        "fast--usw2-az1--x-s3",
        "fast--use1-az10--x-s3",
        "fast--usw2-az1--xa-s3",
        "Fast--usw2-az1--x-s3",
        "--x-s3",
        "alias-o01234567890123456785abcdefghijklmnopqrst--op-s3",
        "arn:aws:s3:us-west-2:123456789012:accesspoint/point",
        "arn:aws:s3:us-west-2:123456789012:accesspoint:point",
        "arn:aws-cn:s3:cn-north-1:123456789012:accesspoint/point",
        "arn:aws:s3:us-west-2:123456789012:accesspoint/po_int",
        "arn:aws:s3:us-west-2::accesspoint/point",
        "arn:aws:s3-object-lambda:us-west-2:123456789012:accesspoint/point",
        "arn:aws:s3-outposts:us-west-2:123456789012:outpost/op-01234567890123456/accesspoint/point",
        "arn:aws:s3::123456789012:accesspoint:many.mrap",
        "arn:aws:sqs:us-west-2:123456789012:queue",
    ];

    /// The address, the service and the region that AWS's own rules give; `None` if they have no
    /// address, or one that only SigV4A or a service of an outpost's alias signs.
    fn of_aws(bucket: &str, region: &str, endpoints: &Endpoints) -> Option<[String; 3]> {
        let params = Params::builder()
            .bucket(bucket)
            .region(region)
            .use_fips(endpoints.use_fips)
            .use_dual_stack(false)
            .accelerate(false)
            .disable_s3_express_session_auth(true)
            .force_path_style(endpoints.s3.is_some())
            .set_endpoint(endpoints.s3.clone())
            .build()
            .unwrap();
        let resolver = DefaultResolver::new();
        let endpoint = futures_util::FutureExt::now_or_never(resolver.resolve_endpoint(&params));
        let endpoint = endpoint.unwrap().ok()?;
        let scheme = endpoint
            .auth_schemes()
            .iter()
            .find(|scheme| scheme.name() == "sigv4")?;
        let text = |name| Some(scheme.get(name)?.as_string()?.to_owned());
        Some([
            endpoint.url().to_owned(),
            text("signingName")?,
            text("signingRegion")?,
        ])
    }

    fn ours(bucket: &str, region: &str, endpoints: &Endpoints) -> Option<[String; 3]> {
        let place = Place::of(bucket, &Region::new(region).unwrap(), endpoints).ok()?;
        let Scope {
            service, region, ..
        } = place.scope;
        Some([place.base, service.into(), region])
    }

    #[test]
    fn every_place_is_the_one_of_aws_s_own_rules() {
        let mut compared = 0;
        for region in REGIONS {
            for bucket in BUCKETS {
                // Access rules out FIPS in China.
                for use_fips in [false, !region.starts_with("cn-")] {
                    let endpoints = Endpoints {
                        use_fips,
                        ..Endpoints::default()
                    };
                    let expected = of_aws(bucket, region, &endpoints);
                    if bucket.ends_with(OUTPOST_ALIAS) {
                        assert_eq!(ours(bucket, region, &endpoints), None);
                        continue;
                    }
                    compared += usize::from(expected.is_some());
                    assert_eq!(
                        ours(bucket, region, &endpoints),
                        expected,
                        "{bucket} from {region}, FIPS: {use_fips}"
                    );
                }
            }
        }
        assert!(compared > 400, "{compared}");
    }

    #[test]
    fn another_store_has_its_buckets_on_paths() {
        let at = |endpoint: &str| Endpoints {
            s3: Some(endpoint.into()),
            ..Endpoints::default()
        };
        let store = at("http://127.0.0.1:9000");
        for bucket in BUCKETS {
            if bucket.contains("--x") || bucket.ends_with(OUTPOST_ALIAS) {
                continue;
            }
            assert_eq!(
                ours(bucket, "eu-west-1", &store),
                of_aws(bucket, "eu-west-1", &store),
                "{bucket}"
            );
        }
        let region = Region::new("eu-west-1").unwrap();
        let below = Place::of("revisions", &region, &at("https://store.example/objects/")).unwrap();
        assert_eq!(below.base, "https://store.example/objects/revisions");
    }

    #[test]
    fn keys_and_versions_are_encoded() {
        let region = Region::new("eu-west-1").unwrap();
        let place = Place::of("revisions", &region, &Endpoints::default()).unwrap();
        assert_eq!(
            place.object("a b/../ä+1&2.zip", Some("x/y=")),
            "https://revisions.s3.eu-west-1.amazonaws.com/a%20b/../%C3%A4%2B1%262.zip?x-id=GetObject&versionId=x%2Fy%3D"
        );
    }
}
