"""Recorded contracts: what each call of a gateway sends, gets, and makes of it, in each mode.

`<channel>/account.json` has the account that all recordings of a channel were made with:

    common              fields of the channel's settings, keys and all, but `base_url`
    modes               by mode: the fields that differ
    platform_private_pem  the platform's key, for answers that must name the replaying server

`<channel>/<mode>/<name>.json` is one recording:

    call, arguments     the method of `Gateway` and what it was given
    now                 the time on the shop's clock; nonces are numbers, counted from 1
    address             where the recorded gateway was
    exchanges           in order: `request` (method, target, headers, body) and `answer` (status,
                        headers, body); a body that is no text stands as `body_base64`
    result              what the call gave
    written             of `download_bill`: what it wrote
    notice              of `read_notice` instead of exchanges: its headers and body

Keys, clock and nonces are fixed, so every byte of a request is: a replay serves the answers on
loopback and fails if a request differs anywhere. The keys are a sandbox's, made for the recording.
`python -m tests.contracts.record` makes all recordings anew.
"""
