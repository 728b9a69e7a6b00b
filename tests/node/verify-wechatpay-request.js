'use strict';
// Checks the signature of a request to WeChat Pay with wechatpay-axios-plugin.
//
// in:  { publicKey, method, uri, timestamp, nonce, body, signature }
// out: { valid }

const { Rsa, Formatter } = require('wechatpay-axios-plugin');
const { request, answer } = require('./io');

const signed = Formatter.request(
  request.method, request.uri, request.timestamp, request.nonce, request.body,
);
answer({ valid: Rsa.verify(signed, request.signature, request.publicKey) });
