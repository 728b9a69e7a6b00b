'use strict';
// Checks the signature of a request to Alipay with the official SDK.
//
// in:  { privateKey, publicKey, params }   the private key is only there to satisfy the SDK
// out: { valid }

const { sdk } = require('./alipay');
const { request, answer } = require('./io');

const { sign, ...signed } = request.params;
const content = Object.keys(signed).filter((key) => signed[key] !== '').sort()
  .map((key) => `${key}=${signed[key]}`).join('&');
answer({ valid: sdk(request).rsaCheck(content, sign, 'RSA2') });
