// SPDX-License-Identifier: Apache-2.0
#include <gtest/gtest.h>

#include <fstream>

#include "base/host.h"
#include "base/sha256.h"

namespace looptrace {
namespace {

// FIPS 180-2, appendix B, and the lengths at which the padding takes a block of its own.
TEST(Sha256, Vectors) {
  EXPECT_EQ(sha256_hex(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(sha256_hex("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(sha256_hex("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  EXPECT_EQ(sha256_hex(std::string(1'000'000, 'a')),
            "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
  EXPECT_EQ(sha256_hex(std::string(55, 'a')),
            "9f4390f8d30c2dd92ec9f095b65e2b9ae9b0a925a5258e241c9f1e910f734318");
  EXPECT_EQ(sha256_hex(std::string(56, 'a')),
            "b35439a4ac6f0948b6d6f9e3c6af0f5f590ce20f1bde7090ef7970686ec6738a");
  EXPECT_EQ(sha256_hex(std::string(64, 'a')),
            "ffe054fe7ae0cb6dc65c3af9b61d5209f439851db43d0ba5997337df154668eb");
}

TEST(Host, IdStandsForTheMachineIdWithoutShowingIt) {
  const std::string path = testing::TempDir() + "/machine-id";
  std::ofstream(path) << "0123456789abcdef0123456789abcdef\n";
  const HostInfo host = read_host_info(path);
  EXPECT_FALSE(host.name.empty());
  EXPECT_EQ(host.id.size(), 32u);
  EXPECT_EQ(host.id.find("0123456789abcdef"), std::string::npos);
  EXPECT_EQ(host.id, read_host_info(path).id);
}

TEST(Host, ThreadsAreThoseOfAllProcesses) {
  const std::string path = testing::TempDir() + "/loadavg";
  std::ofstream(path) << "0.20 0.18 0.12 1/10345 11206\n";
  EXPECT_EQ(count_host_threads(path), 10345u);
  std::ofstream(path) << "nothing of the kind\n";
  EXPECT_EQ(count_host_threads(path), 0u);
  EXPECT_EQ(count_host_threads("/nonexistent"), 0u);
  EXPECT_GT(count_host_threads(), 0u);
}

TEST(Host, NoMachineIdIsNoId) { EXPECT_EQ(read_host_info("/nonexistent").id, ""); }

}  // namespace
}  // namespace looptrace
