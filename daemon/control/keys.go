package control

import (
	"context"
	"errors"
	"time"

	"connectrpc.com/connect"

	rtaskv1 "github.com/rtask/rtask/daemon/api/rtask/v1"
)

// RotateKey implements JobService. Without an overlap it returns when nobody waits any more who came with the old secret.
func (s *Server) RotateKey(ctx context.Context, r *connect.Request[rtaskv1.RotateKeyRequest]) (*connect.Response[rtaskv1.RotateKeyResponse], error) {
	var overlap time.Duration
	if in := r.Msg.Overlap; in != nil {
		if overlap = in.AsDuration(); in.CheckValid() != nil || overlap < 0 {
			return nil, connect.NewError(connect.CodeInvalidArgument, errors.New("an overlap is a time from 0 on"))
		}
	}
	var expires time.Time
	if in := r.Msg.ExpiresIn; in != nil {
		if err := in.CheckValid(); err != nil || in.AsDuration() <= 0 {
			return nil, connect.NewError(connect.CodeInvalidArgument, errors.New("a key expires after a time above 0"))
		}
		expires = time.Now().Add(in.AsDuration())
	}
	info, secret, err := s.Keys.Rotate(r.Msg.Key, overlap, expires)
	if err != nil {
		return nil, keyError(err)
	}
	if overlap == 0 {
		s.waits.end(ctx, info.ID)
	}
	s.Logger.Info("API key rotated", "key", info.ID, "name", info.Name, "overlap", overlap, "by", callerFrom(ctx).Name())
	return connect.NewResponse(&rtaskv1.RotateKeyResponse{Key: keyMessage(info), Secret: string(secret)}), nil
}

// ImportKeys implements JobService.
func (s *Server) ImportKeys(ctx context.Context, r *connect.Request[rtaskv1.ImportKeysRequest]) (*connect.Response[rtaskv1.ImportKeysResponse], error) {
	infos, err := s.Keys.Import("the file", r.Msg.File)
	if err != nil {
		return nil, keyError(err)
	}
	reply := &rtaskv1.ImportKeysResponse{}
	for _, k := range infos {
		s.Logger.Info("API key imported", "key", k.ID, "name", k.Name, "by", callerFrom(ctx).Name())
		reply.Keys = append(reply.Keys, keyMessage(k))
	}
	return connect.NewResponse(reply), nil
}
