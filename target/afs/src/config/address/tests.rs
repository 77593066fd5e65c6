//! Addresses as people write them, right and wrong.

#![allow(clippy::unwrap_used)]

use super::*;

fn texts(list: &[&str]) -> Vec<String> {
    list.iter().map(|text| (*text).to_owned()).collect()
}

fn ips(list: &[&str]) -> Vec<IpAddr> {
    list.iter().map(|text| text.parse().unwrap()).collect()
}

fn portal(text: &str) -> Portal {
    parse(text).unwrap()
}

#[test]
fn an_address_without_port_gets_the_one_of_nvme() {
    for (text, address) in [
        ("192.0.2.7:4421", "192.0.2.7:4421"),
        ("192.0.2.7", "192.0.2.7:4420"),
        ("[2001:db8::7]:4421", "[2001:db8::7]:4421"),
        ("[2001:db8::7]", "[2001:db8::7]:4420"),
        ("2001:db8::7", "[2001:db8::7]:4420"),
    ] {
        for transport in TRANSPORTS {
            let written = format!("{}://{text}", transport.name());
            let wanted = Portal { transport, address: address.parse().unwrap() };
            assert_eq!(parse(&written), Ok(wanted), "{written}");
        }
    }
}

#[test]
fn what_is_no_address_is_refused() {
    for text in [
        "",
        "4420",
        "127.0.0.1:4420",
        "tcp://",
        "rdma://",
        "tcp://host:4420",
        "rdma://mlx5_0:4420",
        "tcp://1.2.3.4:99999",
        "rdma://2001:db8::7]:4420",
    ] {
        assert!(matches!(parse(text), Err(AddressError::Malformed(_))), "{text}");
    }
}

#[test]
fn a_mistyped_transport_is_answered_with_what_there_is() {
    for (scheme, meant) in [("rmda", "rdma"), ("RDMA", "rdma"), ("tpc", "tcp"), ("Tcp", "tcp")] {
        let error = parse(&format!("{scheme}://192.0.2.7:4420")).unwrap_err().to_string();
        assert!(error.contains(&format!("did you mean {meant}://")), "{error}");
        assert!(error.contains("there are tcp:// and rdma://"), "{error}");
    }
    let error = parse("http://192.0.2.7:4420").unwrap_err().to_string();
    assert!(!error.contains("did you mean") && error.contains("tcp:// and rdma://"), "{error}");
}

#[test]
fn each_listener_advertises_its_own_address_unless_told_another() {
    let all = texts(&["tcp://127.0.0.1:1", "tcp://127.0.0.1:2", "rdma://127.0.0.1:1"]);
    let own = listeners(&all, &[]).unwrap();
    assert_eq!(own[1].advertise, [portal("tcp://127.0.0.1:2")]);
    assert_eq!(own[2].advertise, [portal("rdma://127.0.0.1:1")]);
    let other = ["tcp://192.0.2.1:1", "tcp://192.0.2.1:2", "rdma://192.0.2.1:3"];
    let told = listeners(&all, &texts(&other)).unwrap();
    assert_eq!(told[1].advertise, [portal("tcp://192.0.2.1:2")]);
    assert_eq!(told[2].advertise, [portal("rdma://192.0.2.1:3")]);
}

#[test]
fn what_no_host_could_reach_is_never_advertised() {
    let one = texts(&["tcp://0.0.0.0:4420"]);
    for (advertise, wanted) in [
        ("tcp://0.0.0.0:4420", 0),
        ("tcp://192.0.2.1:0", 0),
        ("tcp://[::1]:4420", 1),
        ("rdma://192.0.2.1:4420", 2),
    ] {
        let error = listeners(&one, &texts(&[advertise])).unwrap_err();
        let found = match error {
            AddressError::AdvertisedWildcard(_) => 0,
            AddressError::Family { .. } => 1,
            AddressError::Transports { .. } => 2,
            other => panic!("{advertise}: {other}"),
        };
        assert_eq!(found, wanted, "{advertise}");
    }
    let counts = listeners(&one, &texts(&["tcp://192.0.2.1:1", "tcp://192.0.2.1:2"]));
    assert_eq!(counts, Err(AddressError::Count { listen: 1, advertise: 2 }));
}

#[test]
fn an_address_may_be_listened_on_once_by_each_transport() {
    for scheme in ["tcp", "rdma"] {
        let address = format!("{scheme}://127.0.0.1:1");
        let twice = listeners(&[address.clone(), address], &[]);
        assert!(matches!(twice, Err(AddressError::Twice(_))), "{scheme}");
    }
    let both = texts(&["tcp://127.0.0.1:4420", "rdma://127.0.0.1:4420"]);
    assert_eq!(listeners(&both, &[]).unwrap().len(), 2);
}

#[test]
fn an_rdma_wildcard_is_advertised_as_told_and_an_rdma_port_is_never_chosen() {
    let any = texts(&["rdma://0.0.0.0:4420"]);
    assert!(matches!(listeners(&any, &[]), Err(AddressError::RdmaWildcard(_))));
    let told = listeners(&any, &texts(&["rdma://192.0.2.1:4420"])).unwrap();
    assert_eq!(told[0].advertise, [portal("rdma://192.0.2.1:4420")]);
    let chosen = listeners(&texts(&["rdma://192.0.2.1:0"]), &[]);
    assert!(matches!(chosen, Err(AddressError::RdmaPort(_))));
}

#[test]
fn a_wildcard_stands_for_the_addresses_of_its_family() {
    let all = ips(&[
        "127.0.0.1",
        "192.0.2.9",
        "192.0.2.3",
        "169.254.1.1",
        "::1",
        "fe80::1",
        "2001:db8::1",
    ]);
    let v4 = expand(portal("tcp://0.0.0.0:4420"), &all).unwrap();
    assert_eq!(v4, [portal("tcp://192.0.2.3:4420"), portal("tcp://192.0.2.9:4420")]);
    let v6 = expand(portal("tcp://[::]:4420"), &all).unwrap();
    assert_eq!(v6, [portal("tcp://[2001:db8::1]:4420")]);
    let alone = expand(portal("tcp://0.0.0.0:4420"), &ips(&["127.0.0.1"])).unwrap();
    assert_eq!(alone, [portal("tcp://127.0.0.1:4420")]);
    let none = expand(portal("tcp://[::]:4420"), &ips(&["127.0.0.1", "fe80::1"]));
    assert!(matches!(none, Err(AddressError::NoInterface(_))));
}
