/* sanitized.h - is this AddressSanitizer or ThreadSanitizer? What takes the place of malloc, forks under threads or
 * limits memory does not go with them. SPDX-License-Identifier: Apache-2.0 */
#ifndef SANITIZED_H
#define SANITIZED_H

#define SANITIZED 0
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#undef SANITIZED
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#undef SANITIZED
#define SANITIZED 1
#endif
#endif

#endif
