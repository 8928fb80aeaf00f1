//! The little of DNS messages that passing them on needs (RFC 1035 §4.1).

use std::net::IpAddr;

/// Longest message: its length is a u16 on TCP.
pub(super) const LENGTH_MAX: usize = 65535;

const HEADER: usize = 12;

/// What every client takes by UDP (RFC 1035 §2.3.4), and the most that is sent without being cut on the way
/// (RFC 9715).
const UDP_MIN: usize = 512;
const UDP_MAX: usize = 1400;

pub(super) const TYPE_A: u16 = 1;
pub(super) const TYPE_AAAA: u16 = 28;
const TYPE_OPT: u16 = 41;

const CLASS_INTERNET: u16 = 1;

/// Where the question's name is: right behind the header (RFC 1035 §4.1.4).
const NAME_OF_QUESTION: u16 = 0xc000 | HEADER as u16;

// Flags of the third and fourth byte.
const RESPONSE: u8 = 0x80;
const TRUNCATED: u8 = 0x02;
const OPCODE_AND_DESIRED: u8 = 0x79;
const AVAILABLE: u8 = 0x80;
const SERVFAIL: u8 = 2;

/// Returns the id of a question; `None` when it is too short or an answer.
pub(super) fn question_id(message: &[u8]) -> Option<u16> {
    let header = message.first_chunk::<HEADER>()?;
    (header[2] & RESPONSE == 0).then(|| u16::from_be_bytes([header[0], header[1]]))
}

/// Gives the message another id.
pub(super) fn with_id(mut message: Vec<u8>, id: u16) -> Vec<u8> {
    if let Some(place) = message.first_chunk_mut::<2>() {
        *place = id.to_be_bytes();
    }
    message
}

/// Puts the length in front that TCP needs.
pub(super) fn framed(message: &[u8]) -> Vec<u8> {
    let message = &message[..message.len().min(LENGTH_MAX)];
    let length = u16::try_from(message.len()).expect("cut to what fits");
    [&length.to_be_bytes(), message].concat()
}

/// Returns the name and the kind of records that `question` asks for, when the name has one part only.
pub(super) fn single_label(question: &[u8]) -> Option<(&str, u16)> {
    let (1, length @ 1..=63) = (u16_at(question, 4)?, *question.get(HEADER)?) else {
        return None;
    };
    let end = HEADER + 1 + usize::from(length);
    let label = std::str::from_utf8(question.get(HEADER + 1..end)?).ok()?;
    let root = *question.get(end)? == 0;
    let internet = u16_at(question, end + 3)? == CLASS_INTERNET;
    (root && internet).then_some((label, u16_at(question, end + 1)?))
}

/// Answers `question` with these addresses. Nobody is to keep them: a container can be renamed.
pub(super) fn addresses(question: &[u8], addresses: &[IpAddr]) -> Vec<u8> {
    let mut answer = reply(question, 0, 0);
    let count = u16::try_from(addresses.len()).unwrap_or_default();
    answer[6..8].copy_from_slice(&count.to_be_bytes());
    for address in addresses {
        let (kind, bytes) = match address {
            IpAddr::V4(address) => (TYPE_A, address.octets().to_vec()),
            IpAddr::V6(address) => (TYPE_AAAA, address.octets().to_vec()),
        };
        for field in [NAME_OF_QUESTION, kind, CLASS_INTERNET, 0, 0] {
            answer.extend(field.to_be_bytes());
        }
        answer.extend(framed(&bytes));
    }
    answer
}

/// Says that nobody could answer `question`.
pub(super) fn failure(question: &[u8]) -> Vec<u8> {
    reply(question, 0, SERVFAIL)
}

/// Returns `answer`, or when it is longer than the one who asked can take by UDP, a note to ask by TCP.
pub(super) fn fitting(answer: Vec<u8>, question: &[u8]) -> Vec<u8> {
    if answer.len() <= room(question) {
        answer
    } else {
        reply(question, TRUNCATED, 0)
    }
}

/// A reply with nothing but the question in it.
fn reply(question: &[u8], flags: u8, code: u8) -> Vec<u8> {
    let mut reply = question.to_vec();
    let end = questions_end(question);
    reply.truncate(end.unwrap_or(HEADER));
    reply[2] = RESPONSE | (question[2] & OPCODE_AND_DESIRED) | flags;
    reply[3] = AVAILABLE | code;
    if end.is_none() {
        reply[4..6].fill(0);
    }
    reply[6..HEADER].fill(0);
    reply
}

/// Returns how long an answer by UDP may be: what the question's OPT record says (RFC 6891 §6.2.3).
fn room(question: &[u8]) -> usize {
    offered(question).map_or(UDP_MIN, |size| usize::from(size).clamp(UDP_MIN, UDP_MAX))
}

fn offered(question: &[u8]) -> Option<u16> {
    let mut at = questions_end(question)?;
    let records = [6, 8, 10].iter().try_fold(0_u32, |sum, at| {
        Some(sum + u32::from(u16_at(question, *at)?))
    })?;
    for _ in 0..records {
        at = name_end(question, at)?;
        let (kind, class) = (u16_at(question, at)?, u16_at(question, at + 2)?);
        if kind == TYPE_OPT {
            return Some(class);
        }
        at += 10 + usize::from(u16_at(question, at + 8)?);
    }
    None
}

/// Returns where the question section ends.
fn questions_end(message: &[u8]) -> Option<usize> {
    let mut at = HEADER;
    for _ in 0..u16_at(message, 4)? {
        at = name_end(message, at)? + 4;
    }
    (at <= message.len()).then_some(at)
}

/// Returns where the name at `at` ends. Nothing is followed: a pointer is an end.
fn name_end(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *message.get(at)? {
            0 => return Some(at + 1),
            length @ 1..=63 => at += 1 + usize::from(length),
            192.. => return Some(at + 2),
            64..192 => return None,
        }
    }
}

fn u16_at(message: &[u8], at: usize) -> Option<u16> {
    let bytes = message.get(at..at + 2)?;
    Some(u16::from_be_bytes([bytes[0], bytes[1]]))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A question for the address of `a.test`, with an OPT record when `size` is given.
    fn question(size: Option<u16>) -> Vec<u8> {
        let mut message = vec![
            0x12,
            0x34,
            0x01,
            0x00,
            0,
            1,
            0,
            0,
            0,
            0,
            0,
            u8::from(size.is_some()),
        ];
        message.extend(b"\x01a\x04test\0\0\x01\0\x01");
        if let Some(size) = size {
            message.extend([0, 0, 41]);
            message.extend(size.to_be_bytes());
            message.extend([0; 6]);
        }
        message
    }

    #[test]
    fn a_failure_repeats_the_question() {
        let question = question(Some(1232));
        let failure = failure(&question);
        assert_eq!(failure[..2], question[..2]);
        assert_eq!((failure[2], failure[3]), (0x81, 0x82));
        assert_eq!(failure[4..12], [0, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(failure[12..], question[12..question.len() - 11]);
        assert_eq!(question_id(&failure), None);
    }

    #[test]
    fn a_container_s_name_is_one_label_and_answered_with_its_addresses() {
        let mut asked = vec![0, 7, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0];
        asked.extend(b"\x03dev\0\0\x1c\0\x01");
        assert_eq!(single_label(&asked), Some(("dev", TYPE_AAAA)));
        assert_eq!(single_label(&question(None)), None, "two labels");
        let address: IpAddr = "fd00::7".parse().unwrap();
        let answer = addresses(&asked, &[address]);
        assert_eq!((answer[2], answer[3]), (0x81, 0x80));
        assert_eq!(answer[4..12], [0, 1, 0, 1, 0, 0, 0, 0]);
        let record = &answer[asked.len()..];
        assert_eq!(record[..12], [0xc0, 12, 0, 28, 0, 1, 0, 0, 0, 0, 0, 16]);
        let mut expected = [0; 16];
        (expected[0], expected[15]) = (0xfd, 7);
        assert_eq!(record[12..], expected);
        assert_eq!(addresses(&asked, &[]).len(), asked.len());
    }

    #[test]
    fn long_answers_are_cut_to_what_the_client_takes() {
        let answer = vec![7; 1000];
        let cut = fitting(answer.clone(), &question(None));
        assert_eq!(cut[2] & TRUNCATED, TRUNCATED);
        assert_eq!(fitting(answer.clone(), &question(Some(1232))), answer);
        assert_eq!(fitting(vec![7; 512], &question(None)).len(), 512);
        assert!(fitting(vec![7; 1401], &question(Some(65535))).len() < 100);
    }

    #[test]
    fn broken_messages_never_panic() {
        let good = question(Some(4096));
        for length in 0..good.len() {
            let cut = &good[..length];
            if question_id(cut).is_some() {
                let _ = (failure(cut), fitting(vec![0; 600], cut), single_label(cut));
            }
        }
        for byte in 0..good.len() {
            for value in [0, 63, 64, 192, 255] {
                let mut bad = good.clone();
                bad[byte] = value;
                if question_id(&bad).is_some() {
                    let _ = (failure(&bad), fitting(vec![0; 2000], &bad));
                    let _ = single_label(&bad);
                }
            }
        }
    }

    #[test]
    fn ids_change_and_frames_have_lengths() {
        assert_eq!(with_id(vec![1, 2, 3], 0x0a0b), [10, 11, 3]);
        assert_eq!(framed(&[9; 300])[..3], [1, 44, 9]);
    }
}
